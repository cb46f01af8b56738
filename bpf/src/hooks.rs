//! Chooses the programs that this kernel has hooks for, by the kernel's own description of its types, never
//! by its version.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, FuncProto};
use libbpf_rs::btf::{BtfType, ReferencesType as _};

use crate::error::BpfError;
use crate::skeleton::OpenArmorSkel;

/// Leaves out the programs whose hook this kernel lacks, and of two programs for one hook the one that
/// expects other arguments. Hooks that every kernel from 6.1 on has are not looked up: it is an error if
/// their programs do not load.
pub(crate) fn choose(skeleton: &mut OpenArmorSkel<'_>) -> Result<(), BpfError> {
    let kernel = Btf::from_vmlinux().map_err(BpfError::load)?;
    let has = |hook: &str| arguments(&kernel, hook).is_some();
    let programs = &mut skeleton.progs;
    programs.file_truncate.set_autoload(has("file_truncate"));
    programs.inode_set_acl.set_autoload(has("inode_set_acl"));
    programs.inode_remove_acl.set_autoload(has("inode_remove_acl"));
    programs.inode_file_setattr.set_autoload(has(FILE_ATTRIBUTES));
    let mapped = arguments(&kernel, "inode_setattr") != Some(2);
    programs.inode_setattr.set_autoload(mapped);
    programs.inode_setattr_unmapped.set_autoload(!mapped);
    Ok(())
}

/// The hook for changes of a file's flags and project id.
const FILE_ATTRIBUTES: &str = "inode_file_setattr";

/// Returns whether this kernel has a hook for changes of a file's flags and project id, which are made by
/// ioctl. On other kernels a hook on every ioctl would see them, but makes each ioctl slower by a tenth and
/// more.
pub fn sees_file_attributes() -> bool {
    Btf::from_vmlinux().is_ok_and(|kernel| arguments(&kernel, FILE_ATTRIBUTES).is_some())
}

/// Returns the number of a hook's arguments; `None` if there is no hook of that name.
fn arguments(kernel: &Btf<'_>, hook: &str) -> Option<usize> {
    let function = kernel.type_by_name::<Func<'_>>(&format!("bpf_lsm_{hook}"))?;
    let prototype: BtfType<'_> = function.referenced_type();
    Some(FuncProto::try_from(prototype).ok()?.len())
}
