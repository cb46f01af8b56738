//! Defines the tables that decide accesses to paths.
//!
//! The compiler establishes these invariants, and the kernel side relies on them:
//! - Each path leads to exactly one object class.
//! - Every (subject, object) cell names a vector, and every vector decides every permission, so that the
//!   kernel side never resolves precedence, ownership or postures.
//! - A directory's path is walked with a trailing `/`; no other path ends in one.

use crate::automaton::Automaton;
use crate::decision::Decision;
use crate::keyed::KeyedTable;

/// The object class of a path that no rule matches.
pub const OBJECT_NONE: u16 = 0;
/// The object class of a file without a path in any mount tree: memfd, pipe, or on another kernel-internal
/// mount.
pub const OBJECT_ANONYMOUS: u16 = 1;
/// The object class of a file whose path cannot be determined: on a detached mount, longer than 4096 bytes,
/// or renamed while the path was read.
pub const OBJECT_UNRESOLVED: u16 = 2;
/// The first object class that the compiler assigns.
pub const OBJECT_FIRST: u16 = 3;
/// A `Permission` is a kind of access of a task to an object. Its discriminant is the index of its pair of
/// decisions in a [`Vector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Permission {
    /// Opening for reading, listing a directory, or receiving a readable descriptor.
    Read = 0,
    /// Opening for writing, and changing a name, an attribute or a length.
    Write = 1,
    /// Starting as a program (`execve`), scripts and their interpreters included.
    Exec = 2,
    /// Mapping with `PROT_EXEC`, as `ld.so PROGRAM` does. The posture does not apply; otherwise no library
    /// could be loaded.
    Map = 3,
}

/// All permissions, in index order.
pub const PERMISSIONS: [Permission; 4] =
    [Permission::Read, Permission::Write, Permission::Exec, Permission::Map];

/// A `Vector` holds the decisions for one subject class and one object class: at `[2 * permission + owner]`,
/// where `owner` is 1 if the task's filesystem uid owns the file. Then comes the number of the list in
/// [`ArgumentTables`] that decides on the arguments of a start which these decisions permit; 0: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vector(pub [Decision; 8], pub u16);

impl Vector {
    /// Returns the decision for one permission.
    pub const fn decision(&self, permission: Permission, owner: bool) -> Decision {
        self.0[2 * permission as usize + owner as usize]
    }
}

/// A `PathTables` holds the tables of one domain that decide accesses to paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTables {
    /// The automaton from a path to its object class.
    pub objects: Automaton,
    /// Number of object classes, the reserved ones included.
    pub object_count: u32,
    /// Indices into `vectors`, at `[subject * object_count + object]`.
    pub cells: Vec<u32>,
    /// The distinct access vectors.
    pub vectors: Vec<Vector>,
    /// The tables that decide on the arguments of programs.
    pub arguments: ArgumentTables,
}

/// An `ArgumentTables` decides on the arguments with which programs are started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentTables {
    /// The automaton from an argument to its class; 0 is the class of those in no list.
    pub classes: Automaton,
    /// The decision by the number of a list, in place of a subject class, and the class of an argument. Class 0 stands
    /// for arguments that are too long, too many or none, too. No rows if there are no lists.
    pub lists: KeyedTable,
}

impl PathTables {
    /// Returns the vector for a subject class and an object class.
    pub fn vector(&self, subject: u16, object: u16) -> &Vector {
        &self.vectors[self.cells[subject as usize * self.object_count as usize + object as usize] as usize]
    }
}
