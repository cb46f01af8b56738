//! Makes generations live.

use std::os::fd::{AsFd, AsRawFd};

use armor_policy::Domain;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::{Enforcer, leading_u32};
use crate::HOST_DOMAIN;
use crate::contract::{self, linked_key};
use crate::error::BpfError;
use crate::image::{DomainRules, Generation, generation_of, image_map};
use crate::iterator::{NAMESPACES, position};
use crate::mount_tree::MountTree;
use crate::pins;

impl Enforcer {
    /// Builds a generation beside the live one, makes it live, and ends the programs of other versions. If
    /// building fails, the live generation stays.
    pub fn swap(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        if generation.id <= self.generation {
            let reason = format!("generation {} is already live", self.generation);
            return Err(BpfError::Generation { id: generation.id, reason });
        }
        self.make_live(generation)?;
        self.directory.as_deref().map_or(Ok(()), pins::end_other_versions)
    }

    /// Makes a generation without rules live. What is attached on demand stays attached for the next generation, which
    /// may need it again: attaching takes much longer than to swap.
    pub fn lift_rules(&mut self) -> Result<(), BpfError> {
        let id = self.generation + 1;
        self.publish(&Generation { id, host_mount_namespace: 0, domains: &[] })
    }

    /// Makes a generation live without comparing its number, and leaves other versions alone.
    pub(crate) fn make_live(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        self.publish(generation)?;
        self.detach_beyond(generation);
        Ok(())
    }

    /// Makes a generation live, with everything attached that it needs.
    fn publish(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        let words = generation.words()?;
        let image = image_map(&words).map_err(|source| BpfError::Map { map: "live", source })?;
        for DomainRules { number, tables: domain, tree, .. } in generation.domains {
            self.name_linked_files(generation.id, *number, domain, tree)?;
            self.record_entry_root(*number, tree)?;
        }
        self.iterate(position(NAMESPACES), |_| None)?;
        self.attach_for(generation)?;
        let host_is_ruled = generation.domains.iter().any(|domain| domain.number == HOST_DOMAIN);
        if host_is_ruled {
            self.set_host_ruled(true)?;
        }
        self.live
            .update(&0u32.to_ne_bytes(), &image.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| BpfError::Map { map: "live", source })?;
        if !host_is_ruled && let Err(error) = self.set_host_ruled(false) {
            tracing::warn!("tasks of the host are looked for in vain: {error}");
        }
        // A decision that began under the previous generation may still look up its linked files. Nothing
        // uses those of earlier generations.
        let last = self.generation;
        self.generation = generation.id;
        self.forget_linked_files_before(last)?;
        let depends_on_peer = |domain: &DomainRules<'_>| domain.tables.ingress.depends_on_peer();
        if generation.domains.iter().any(depends_on_peer) { self.note_receivers() } else { Ok(()) }
    }

    fn set_host_ruled(&self, ruled: bool) -> Result<(), BpfError> {
        self.host_ruled
            .update(&0u32.to_ne_bytes(), &u32::from(ruled).to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| BpfError::Map { map: "host_ruled", source })
    }

    fn name_linked_files(
        &self,
        id: u32,
        number: u32,
        domain: &Domain,
        tree: &MountTree,
    ) -> Result<(), BpfError> {
        for file in &tree.linked {
            let objects = &domain.path.objects;
            let class = objects.class(objects.walk(file.path.as_os_str().as_encoded_bytes()));
            let key = linked_key {
                generation: id,
                domain: number,
                inode: file.inode,
                device: file.device,
                reserved: 0,
            };
            self.linked_files
                .update(contract::bytes(&key), &u32::from(class).to_ne_bytes(), MapFlags::ANY)
                .map_err(|source| BpfError::Map { map: "linked_files", source })?;
        }
        Ok(())
    }

    /// Records the mount namespace of a container whose entry root is unknown. The container's first process
    /// may later move to any other one.
    fn record_entry_root(&self, domain: u32, tree: &MountTree) -> Result<(), BpfError> {
        if domain == HOST_DOMAIN || tree.mount_namespace == 0 {
            return Ok(());
        }
        let note = || match self.entrances.lookup(&domain.to_ne_bytes(), MapFlags::ANY)? {
            Some(known) if leading_u32(&known) != 0 => Ok(()),
            _ => self.set_entry_root(domain, tree.mount_namespace),
        };
        note().map_err(|source| BpfError::Map { map: "entrances", source })
    }

    /// Sets the mount namespace of a domain's entry root. The other fields are zeroed; the kernel side fills
    /// them in.
    pub(super) fn set_entry_root(&self, domain: u32, mount_namespace: u32) -> libbpf_rs::Result<()> {
        let mut entry_root = vec![0; self.entrances.value_size() as usize];
        entry_root[..4].copy_from_slice(&mount_namespace.to_ne_bytes());
        self.entrances.update(&domain.to_ne_bytes(), &entry_root, MapFlags::ANY)
    }

    /// Removes the linked files of earlier generations.
    fn forget_linked_files_before(&self, generation: u32) -> Result<(), BpfError> {
        let is_old =
            |key: &Vec<u8>| contract::read(key).is_some_and(|key: linked_key| key.generation < generation);
        let old: Vec<_> = self.linked_files.keys().filter(is_old).collect();
        for key in old {
            self.linked_files.delete(&key).map_err(|source| BpfError::Map { map: "linked_files", source })?;
        }
        Ok(())
    }

    /// Returns the generation's number from the live image; 0 if no image is live.
    pub(super) fn live_generation(&self) -> Result<u32, BpfError> {
        let look = || {
            let Some(id) = self.live.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)? else { return Ok(0) };
            let image = MapHandle::from_map_id(leading_u32(&id))?;
            let page = image.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
            Ok(page.and_then(|page| generation_of(&page)).unwrap_or(0))
        };
        look().map_err(|source| BpfError::Map { map: "live", source })
    }
}
