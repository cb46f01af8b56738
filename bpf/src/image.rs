//! Lays out a generation as the kernel side reads it. `core/contract.h` describes the layout of its words.

use armor_policy::Domain;
use armor_policy::automaton::{Automaton, Jump};
use armor_policy::decision::Verdict;
use armor_policy::destination::{DestinationTable, ENTRIES, Entry};
use armor_policy::keyed::KeyedTable;
use armor_policy::path::Vector;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use plain::Plain;

use crate::contract::{
    self, domain_flag, image_automaton, image_destinations, image_domain, image_kinds, image_size,
    socket_kind, table_bit,
};
use crate::error::BpfError;
use crate::mount_tree::MountTree;
use crate::{HOST_DOMAIN, MAX_DOMAIN};

/// Number of words of a `struct image_domain`.
const DOMAIN_WORDS: usize = image_size::IMAGE_DOMAIN_WORDS.0 as usize;
/// Number of words of a node of a trie of addresses.
const NODE_WORDS: u32 = ENTRIES as u32 / 2;
/// Number of words of a page. The kernel rejects an image with pages of another size.
const PAGE_WORDS: usize = image_size::IMAGE_PAGE_WORDS.0 as usize;
/// Number of pages per batch update: 2 MiB at a time.
const BATCH: usize = 64;
/// A directory that no rule names: its name is a byte that no path contains by chance.
const ELSEWHERE: &[u8] = b"/\x01/";
/// An entry of a trie of addresses with which everything is silently allowed (`core/contract.h`).
const ENTRY_SILENT: u32 = u32::MAX;
/// Maximum number of words, 256 MiB. A larger image would not be a policy but an attack on the node's memory.
const MAX_WORDS: usize = 32 << 20;

/// A `Generation` is the set of all rules that are live at one time.
#[derive(Clone, Copy, Debug)]
pub struct Generation<'a> {
    /// The generation's number, which is above 0 and above that of every earlier one in the same pin
    /// directory.
    pub id: u32,
    /// Inode number of the host's mount namespace; containers are outside of it. 0: no task enters a
    /// container.
    pub host_mount_namespace: u32,
    /// The domains that have rules. Tables that several of them refer to are stored once.
    pub domains: &'a [DomainRules<'a>],
}

/// `DomainRules` are the rules of one domain in a [`Generation`].
#[derive(Clone, Debug)]
pub struct DomainRules<'a> {
    /// The domain's number, up to [`MAX_DOMAIN`].
    pub number: u32,
    /// The tables.
    pub tables: &'a Domain,
    /// The mount tree of the domain's workload.
    pub tree: MountTree,
    /// The settings.
    pub settings: DomainSettings,
}

/// `DomainSettings` say how a domain's rules are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainSettings {
    /// Number of alerts per rule and second before the rest are only counted; 0: unlimited.
    pub alerts_per_second: u32,
    /// True if a program that has rights by `fromSource` starts as if it were setuid.
    pub secure_sources: bool,
}

impl Generation<'_> {
    /// Returns the image's words. Fails with [`BpfError::Generation`] if a number is out of range or the
    /// tables are too large.
    pub(crate) fn words(&self) -> Result<Vec<u64>, BpfError> {
        let refuse = |reason: String| BpfError::Generation { id: self.id, reason };
        if self.domains.iter().any(|domain| domain.number > MAX_DOMAIN) {
            return Err(refuse(format!("domains are numbered up to {MAX_DOMAIN}")));
        }
        // The head of domain 0 gives the generation and the host's mount namespace, even if the host has no
        // rules.
        let mut words = vec![0; (MAX_DOMAIN as usize + 1) * DOMAIN_WORDS];
        let nobodys = image_domain {
            generation: self.id,
            mount_namespace: self.host_mount_namespace,
            ..Default::default()
        };
        words[..DOMAIN_WORDS].copy_from_slice(&words_of::<_, DOMAIN_WORDS>(&nobodys));
        let mut laid: Vec<(&Domain, Tables)> = Vec::new();
        for DomainRules { number, tables: domain, tree, settings } in self.domains {
            let known = laid.iter().find(|(known, _)| std::ptr::eq(*known, *domain));
            let tables = known.map(|(_, tables)| *tables).unwrap_or_else(|| {
                let tables = Tables::append(&mut words, domain);
                laid.push((*domain, tables));
                tables
            });
            let head = image_domain {
                flags: flags(domain)
                    | if settings.secure_sources { domain_flag::DOMAIN_SECURE_SOURCES.0 } else { 0 },
                generation: self.id,
                object_count: domain.path.object_count,
                cells: tables.cells,
                vectors: tables.vectors,
                mount_namespace: if *number == HOST_DOMAIN { tree.mount_namespace } else { 0 },
                alerts_per_second: settings.alerts_per_second,
                elsewhere: domain.path.objects.walk(ELSEWHERE),
                terminals: domain.terminals,
                objects: tables.objects,
                subjects: tables.subjects,
                kinds: tables.kinds,
            };
            if words.len() > MAX_WORDS {
                return Err(refuse(format!(
                    "domain {number} makes the tables larger than {} MiB",
                    MAX_WORDS >> 17
                )));
            }
            let first = *number as usize * DOMAIN_WORDS;
            words[first..first + DOMAIN_WORDS].copy_from_slice(&words_of::<_, DOMAIN_WORDS>(&head));
        }
        Ok(words)
    }
}

fn flags(domain: &Domain) -> u32 {
    let refuses = domain.decisions().any(|decision| decision.verdict() == Verdict::Block);
    let programs = if domain.terminals > 0 { domain.terminals } else { domain.subject_count };
    let when = |flag: domain_flag, holds: bool| if holds { flag.0 } else { 0 };
    let sockets = (0..socket_kind::SOCKET_KINDS.0).filter(|kind| domain.network.decides(*kind as usize));
    domain_flag::DOMAIN_RULED.0
        | sockets.fold(0, |flags, kind| flags | domain_flag::DOMAIN_SOCKETS.0 << kind)
        | when(domain_flag::DOMAIN_SUBJECTS, programs > 1)
        | when(domain_flag::DOMAIN_REFUSES, refuses)
        | when(domain_flag::DOMAIN_PEERS, domain.ingress.depends_on_peer())
}

/// A `Tables` says where a domain's tables are in the image.
#[derive(Clone, Copy)]
struct Tables {
    cells: u32,
    vectors: u32,
    objects: image_automaton,
    subjects: image_automaton,
    kinds: u32,
}

impl Tables {
    fn append(words: &mut Vec<u64>, domain: &Domain) -> Self {
        let decisions =
            |vector: &Vector| vector.0.chunks(2).map(|of| pair(of[0].0, of[1].0)).collect::<Vec<_>>();
        Self {
            cells: append(words, domain.path.cells.iter().map(|&vector| cell(vector, domain))),
            vectors: append(words, domain.path.vectors.iter().flat_map(decisions)),
            objects: append_automaton(words, &domain.path.objects),
            subjects: append_automaton(words, &domain.subjects),
            kinds: append_kinds(words, domain),
        }
    }
}

/// Returns a cell: a vector's index, the masks of its decisions that are not silent allows and that are refusals, and the
/// number of its list.
fn cell(vector: u32, domain: &Domain) -> u64 {
    let mask = |Vector(decisions, list): &Vector| {
        let list = u32::from(*list) << table_bit::CELL_LIST.0;
        (0..).zip(decisions).fold(list, |mask, (bit, decision)| match decision.verdict() {
            Verdict::Allow => mask,
            Verdict::Audit => mask | 1 << bit,
            Verdict::Block => mask | 1 << bit | 1 << (table_bit::CELL_BLOCKED.0 + bit),
        })
    };
    // The kernel side refuses where a cell has no vector, so such a cell must not look like a silent allow.
    pair(vector, domain.path.vectors.get(vector as usize).map_or(u32::MAX, mask))
}

/// Appends the tables of arguments and of other kinds of rules than paths, then their `struct image_kinds`, and returns its offset; 0
/// if there are none.
fn append_kinds(words: &mut Vec<u64>, domain: &Domain) -> u32 {
    let kinds: [u64; 8] = words_of(&image_kinds {
        capabilities: append_table(words, &domain.capability),
        network: append_table(words, &domain.network),
        presets: append_table(words, &domain.presets),
        syscalls: append_table(words, &domain.syscalls.calls),
        syscall_paths: append_classes(words, &domain.syscalls.paths, &domain.syscalls.cells),
        dns: append_classes(words, &domain.dns.names, &domain.dns.cells),
        arguments: append_classes(words, &domain.path.arguments.classes, &domain.path.arguments.lists),
        egress: append_destinations(words, &domain.egress),
        ingress: append_destinations(words, &domain.ingress),
        ..Default::default()
    });
    if kinds == [0; 8] { 0 } else { append_groups(words, [kinds].into_iter()) }
}

/// Appends a table of destinations.
fn append_destinations(words: &mut Vec<u64>, table: &DestinationTable) -> image_destinations {
    if table.lists.is_empty() {
        return image_destinations::default();
    }
    let lists: Vec<u32> = table
        .lists
        .iter()
        .map(|list| {
            if list.iter().all(|(_, cell)| !table.cells.decides(*cell as usize)) {
                return ENTRY_SILENT;
            }
            let count = [list.len() as u64].into_iter();
            append(words, count.chain(list.iter().map(|(first, cell)| pair(*first, *cell))))
        })
        .collect();
    // Nodes lie one behind the other, none of them across two pages.
    words.resize(words.len().next_multiple_of(NODE_WORDS as usize), 0);
    let first = words.len() as u32;
    let entry = |entry: &Entry| match *entry {
        Entry::Node(node) => first + node * NODE_WORDS,
        Entry::Value(list) => lists[list as usize] | 1 << table_bit::SLOT_MARK.0,
    };
    let nodes =
        table.nodes.iter().flat_map(|node| node.chunks(2).map(|of| pair(entry(&of[0]), entry(&of[1]))));
    append(words, nodes);
    let (ipv4, ipv6) = (entry(&table.ipv4), entry(&table.ipv6));
    let anybody = entry(&Entry::Value(table.anybody));
    image_destinations { ipv4, ipv6, cells: append_table(words, &table.cells), anybody }
}

/// Appends an automaton and the keyed table of its classes, and returns the offset of a `struct image_names` or
/// `struct image_arguments`; 0 if the table decides nothing.
fn append_classes(words: &mut Vec<u64>, automaton: &Automaton, table: &KeyedTable) -> u32 {
    if table.rows.is_empty() {
        return 0;
    }
    let image_automaton { slots, jumps, start } = append_automaton(words, automaton);
    let table = append_table(words, table);
    append_groups(words, [[pair(slots, jumps), pair(start, table)]].into_iter())
}

/// Appends a keyed table and returns its offset; 0 if it has no rows.
fn append_table(words: &mut Vec<u64>, table: &KeyedTable) -> u32 {
    let rows: Vec<u64> = table
        .rows
        .iter()
        .map(|row| {
            let in_pairs = row.chunks(2).map(|of| pair(of[0].0, of.get(1).map_or(0, |second| second.0)));
            pair(append(words, in_pairs), row.len() as u32 - 1)
        })
        .collect();
    if rows.is_empty() { 0 } else { append(words, table.row_of.iter().map(|row| rows[*row as usize])) }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Appends an automaton and returns its `struct image_automaton`.
fn append_automaton(words: &mut Vec<u64>, automaton: &Automaton) -> image_automaton {
    let slots = append(words, automaton.slots.iter().map(|slot| pair(slot.check, slot.next)));
    let jump = |jump: &Jump| [u64::from_ne_bytes(jump.bytes), pair(jump.from, jump.to)];
    let jumps = append_groups(words, automaton.jumps.iter().map(jump));
    image_automaton { slots, jumps, start: automaton.start }
}

/// Returns the words of a structure of the contract, which has so many.
fn words_of<T: Plain, const WORDS: usize>(structure: &T) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(contract::bytes(structure).as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Creates an inner map for `live` that holds all the words.
pub(crate) fn image_map(words: &[u64]) -> libbpf_rs::Result<MapHandle> {
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        map_flags: libbpf_rs::libbpf_sys::BPF_F_INNER_MAP,
        ..Default::default()
    };
    let (page_bytes, pages) = (PAGE_WORDS * 8, words.len().div_ceil(PAGE_WORDS));
    let map = MapHandle::create(MapType::Array, Some("image"), 4, page_bytes as u32, pages as u32, &options)?;
    for (first, chunk) in (0u32..).step_by(BATCH).zip(words.chunks(BATCH * PAGE_WORDS)) {
        let count = chunk.len().div_ceil(PAGE_WORDS);
        let keys: Vec<u8> = (first..).take(count).flat_map(u32::to_ne_bytes).collect();
        let mut values: Vec<u8> = chunk.iter().flat_map(|word| word.to_ne_bytes()).collect();
        values.resize(count * page_bytes, 0);
        map.update_batch(&keys, &values, count as u32, MapFlags::ANY, MapFlags::ANY)?;
    }
    Ok(map)
}

/// Returns the generation's number from an image's first page.
pub(crate) fn generation_of(page: &[u8]) -> Option<u32> {
    contract::read::<image_domain>(page).map(|head| head.generation)
}

/// Appends groups of words, each within one page as their size is a power of two, and returns their offset.
fn append_groups<const SIZE: usize>(words: &mut Vec<u64>, groups: impl Iterator<Item = [u64; SIZE]>) -> u32 {
    words.resize(words.len().next_multiple_of(SIZE), 0);
    append(words, groups.flatten())
}

/// Appends words and returns their offset. Offsets stay far below 2^32, since [`MAX_WORDS`] is checked after
/// each domain.
fn append(words: &mut Vec<u64>, more: impl Iterator<Item = u64>) -> u32 {
    let at = words.len() as u32;
    words.extend(more);
    at
}
