//! Chooses the programs that this kernel has hooks for, by the kernel's own description of its types, never
//! by its version.

use std::sync::OnceLock;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::btf::{BtfType, ReferencesType as _};

use crate::error::BpfError;
use crate::skeleton::OpenArmorSkel;

/// `Hooks` are what this kernel has of the hooks that not every kernel from 6.1 on has.
#[derive(Clone, Copy)]
struct Hooks {
    file_truncate: bool,
    inode_set_acl: bool,
    inode_remove_acl: bool,
    /// For changes of a file's flags and project id, which are made by ioctl. On other kernels a hook on
    /// every ioctl would see them, but makes each ioctl slower by a tenth and more.
    inode_file_setattr: bool,
    /// Whether `inode_setattr` is told the mount's map of ids.
    setattr_is_mapped: bool,
}

impl Hooks {
    /// Returns this kernel's hooks. The kernel's types are read once, because that takes milliseconds.
    fn get() -> libbpf_rs::Result<Self> {
        static HOOKS: OnceLock<Hooks> = OnceLock::new();
        if let Some(hooks) = HOOKS.get() {
            return Ok(*hooks);
        }
        let kernel = Btf::from_vmlinux()?;
        let has = |hook: &str| arguments(&kernel, hook).is_some();
        let hooks = Self {
            file_truncate: has("file_truncate"),
            inode_set_acl: has("inode_set_acl"),
            inode_remove_acl: has("inode_remove_acl"),
            inode_file_setattr: has("inode_file_setattr"),
            setattr_is_mapped: arguments(&kernel, "inode_setattr") != Some(2),
        };
        Ok(*HOOKS.get_or_init(|| hooks))
    }
}

/// Leaves out the programs whose hook this kernel lacks, and of two programs for one hook the one that
/// expects other arguments. Hooks that every kernel from 6.1 on has are not looked up: it is an error if
/// their programs do not load.
pub(crate) fn choose(skeleton: &mut OpenArmorSkel<'_>) -> Result<(), BpfError> {
    let hooks = Hooks::get().map_err(BpfError::load)?;
    let programs = &mut skeleton.progs;
    programs.file_truncate.set_autoload(hooks.file_truncate);
    programs.inode_set_acl.set_autoload(hooks.inode_set_acl);
    programs.inode_remove_acl.set_autoload(hooks.inode_remove_acl);
    programs.inode_file_setattr.set_autoload(hooks.inode_file_setattr);
    programs.inode_setattr.set_autoload(hooks.setattr_is_mapped);
    programs.inode_setattr_unmapped.set_autoload(!hooks.setattr_is_mapped);
    Ok(())
}

/// Returns whether this kernel has a hook for changes of a file's flags and project id.
pub fn sees_file_attributes() -> bool {
    Hooks::get().is_ok_and(|hooks| hooks.inode_file_setattr)
}

/// Returns the number of a hook's arguments; `None` if there is no hook of that name.
fn arguments(kernel: &Btf<'_>, hook: &str) -> Option<usize> {
    let function = kernel.type_by_name::<Func<'_>>(&format!("bpf_lsm_{hook}"))?;
    let prototype: BtfType<'_> = function.referenced_type();
    Some(FuncProto::try_from(prototype).ok()?.len())
}
