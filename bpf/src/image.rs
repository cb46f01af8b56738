//! A generation as the kernel reads it: `abi.h` describes the layout of its words.

use armor_policy::tables::{Automaton, Domain};

use crate::error::BpfError;
use crate::home::Home;
use crate::{MAX_DOMAIN, skeleton::types};

/// Words of a `struct image_domain`.
const DOMAIN_WORDS: usize = 6;
/// `DOMAIN_RULED` of `abi.h`.
const RULED: u32 = 1 << 0;
/// `DOMAIN_SUBJECTS` of `abi.h`.
const SUBJECTS: u32 = 1 << 1;
/// More would not be a policy but an attack on the node's memory: 256 MiB of words.
const MAX_WORDS: usize = 32 << 20;

const _: () = assert!(size_of::<types::image_domain>() == DOMAIN_WORDS * 8);

/// All rules that are to be live at one time.
#[derive(Clone, Copy, Debug)]
pub struct Generation<'a> {
    /// Above 0, and above every earlier one's in the same pin directory.
    pub id: u32,
    /// The domains that have rules: number (up to [`MAX_DOMAIN`]), tables, and where its root shows its filesystems.
    pub domains: &'a [(u32, &'a Domain, Home)],
    /// Alerts per rule, domain and second before the rest are only counted; 0: unlimited.
    pub alerts_per_second: u32,
}

impl Generation<'_> {
    /// The image's words. Fails with [`BpfError::Generation`] when a number is out of range or the tables are too large.
    pub(crate) fn words(&self) -> Result<Vec<u64>, BpfError> {
        let refuse = |reason: String| BpfError::Generation { id: self.id, reason };
        let count = self.domains.iter().map(|(number, ..)| number + 1).max().unwrap_or(0);
        if count > MAX_DOMAIN + 1 {
            return Err(refuse(format!("domains are numbered up to {MAX_DOMAIN}")));
        }
        // An image without domains still needs a word: the kernel has no empty arrays.
        let mut words = vec![0; (count as usize * DOMAIN_WORDS).max(1)];
        for (number, domain, home) in self.domains {
            let head = [
                pair(RULED | if domain.subject_count > 1 { SUBJECTS } else { 0 }, domain.object_count),
                pair(append(&mut words, slots(&domain.objects)), domain.objects.start),
                pair(append(&mut words, slots(&domain.subjects)), domain.subjects.start),
                pair(
                    append(&mut words, domain.cells.iter().map(|&vector| vector.into())),
                    append(
                        &mut words,
                        domain
                            .vectors
                            .iter()
                            .flat_map(|vector| vector.0.chunks(2).map(|d| pair(d[0].0, d[1].0))),
                    ),
                ),
                pair(home.mount_namespace, self.id),
                pair(self.alerts_per_second, 0),
            ];
            if words.len() > MAX_WORDS {
                return Err(refuse(format!(
                    "domain {number} makes the tables larger than {} MiB",
                    MAX_WORDS >> 17
                )));
            }
            let first = *number as usize * DOMAIN_WORDS;
            words[first..first + DOMAIN_WORDS].copy_from_slice(&head);
        }
        Ok(words)
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn slots(automaton: &Automaton) -> impl Iterator<Item = u64> {
    automaton.slots.iter().map(|slot| pair(slot.check, slot.next))
}

/// Appends and returns where. Offsets stay far below 2^32 as long as [`MAX_WORDS`] is checked after each domain.
fn append(words: &mut Vec<u64>, more: impl Iterator<Item = u64>) -> u32 {
    let at = words.len() as u32;
    words.extend(more);
    at
}
