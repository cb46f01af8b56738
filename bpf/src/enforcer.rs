//! Loads and attaches the programs, or takes over the pinned ones, and updates their maps.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use armor_policy::Domain;
use armor_policy::escaped_path;
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, OpenObject};

use crate::HOST_DOMAIN;
use crate::container::ContainerId;
use crate::contract::{self, label, labelled, linked_key};
use crate::counters::Counters;
use crate::error::BpfError;
use crate::event::{Event, Events};
use crate::guard::Guarded;
use crate::hooks;
use crate::image::{Generation, generation_of, image_map};
use crate::iterator::{Iterator, pinned_program};
use crate::judge::{self, JUDGE};
use crate::mount_tree::MountTree;
use crate::output;
use crate::pins::{self, Leftover, VERSION, pin_error};
use crate::preemption;
use crate::skeleton::{ArmorSkel, ArmorSkelBuilder, OpenArmorSkel};
use crate::skipped::Attached;
use crate::symbols;

/// The iterator programs: first those over preexisting handles (`path/preexisting.bpf.h`), then those over all
/// tasks.
pub(crate) const ITERATORS: [&str; 6] =
    ["preexisting_files", "preexisting_mappings", LABEL, RELEASE, NAMESPACES, SETTLE];
const LABEL: &str = "label_tasks";
const RELEASE: &str = "release_unidentified";
const NAMESPACES: &str = "note_namespaces";
pub(crate) const SETTLE: &str = "settle_undecided";
/// Number of [`ITERATORS`], the first ones, that yield preexisting handles.
const HELD: usize = 2;
/// Bytes read from an iterator at a time: 32 KiB, the size of the kernel's own buffer. No record is longer.
const ITERATOR_CHUNK: usize = 32 * 1024;
/// Maximum number of passes over all tasks. A pass is repeated for the tasks that were forked during it.
const LABEL_PASSES: usize = 16;

/// A `Labelled` is the result of a pass over all tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// Number of tasks that got a label.
    pub new: usize,
    /// Domains that tasks are in, including [`EXEMPT_DOMAIN`](crate::EXEMPT_DOMAIN).
    pub domains: BTreeSet<u32>,
}

/// A `Labeller` puts tasks into domains without an [`Enforcer`].
pub struct Labeller(MapHandle);

impl Labeller {
    /// Puts a task into a domain, as [`Enforcer::label`] does.
    pub fn label(&self, task: BorrowedFd<'_>, domain: u32) -> Result<(), BpfError> {
        put_label(&self.0, task, domain)
    }
}

fn put_label(labels: &MapHandle, task: BorrowedFd<'_>, domain: u32) -> Result<(), BpfError> {
    let label = label { domain, ..Default::default() };
    labels
        .update(&task.as_raw_fd().to_ne_bytes(), contract::bytes(&label), MapFlags::ANY)
        .map_err(|source| BpfError::Map { map: "labels", source })
}

/// An `Enforcer` holds the loaded and attached programs and their maps.
pub struct Enforcer {
    live: MapHandle,
    labels: MapHandle,
    containers: MapHandle,
    entrances: MapHandle,
    linked_files: MapHandle,
    undecided: MapHandle,
    guarded: Guarded,
    events: MapHandle,
    counters: MapHandle,
    attached: Attached,
    /// The attached [`ITERATORS`], in the same order.
    iterators: Vec<Iterator>,
    /// Number of the live generation, which an agent that takes over reads from the live image.
    generation: u32,
    /// Links of programs that end with this process; empty if pins hold the programs. They are dropped in
    /// order: those to the hooks first, then the judge's.
    links: Vec<Link>,
    /// Directory below which everything is pinned; `None` if nothing is.
    directory: Option<PathBuf>,
    took_over: bool,
    verified_instructions: Vec<(String, u32)>,
}

impl Enforcer {
    /// Makes the programs run. With a directory on a bpf filesystem, takes over the programs that are pinned
    /// below it, or loads and pins them there; without a directory, they end with this process.
    pub fn attach(directory: Option<&Path>) -> Result<Self, BpfError> {
        output::listen();
        let Some(directory) = directory else { return Self::load(None) };
        pins::require_bpffs(directory)?;
        fs::create_dir_all(directory).map_err(|source| pin_error(directory, source))?;
        let pins = directory.join(VERSION);
        if !pins.is_dir() {
            return Self::load(Some(directory));
        }
        if pins::are_whole(&pins, &hook_programs()?)? {
            return Self::take_over(directory, &pins);
        }
        tracing::warn!("{}: pins are gone from there: the programs are loaded anew", escaped_path(&pins));
        pins::set_aside(directory)?;
        Self::load(Some(directory))
    }

    fn load(directory: Option<&Path>) -> Result<Self, BpfError> {
        symbols::seen().map_err(BpfError::Symbols)?;
        let mut object = MaybeUninit::uninit();
        let mut skeleton = open(&mut object)?;
        if let Some(directory) = directory {
            pins::go_on_with_labels(&mut skeleton, directory)?;
        }
        let mut skeleton = skeleton.load().map_err(BpfError::load)?;
        // The judge's object stays open until the other programs are attached. If this process is killed, the
        // kernel closes the files that were opened last first, so unpinned programs end before their judge.
        let mut judge = MaybeUninit::uninit();
        let judge = judge::load(&mut judge, &skeleton)?;
        let mut judges = judge::replace(&judge, &skeleton)?;
        let (mut links, mut iterators) = (Vec::new(), BTreeMap::new());
        for program in skeleton.object_mut().progs_mut().filter(|program| program.autoload()) {
            let name = program.name().to_owned();
            let failed = |source| BpfError::Attach { program: name.to_string_lossy().into_owned(), source };
            if let Some(place) = ITERATORS.iter().position(|iterator| name == *iterator) {
                let iterator = Iterator::of(program.as_fd());
                iterators.insert(place, iterator.map_err(|error| failed(error.into()))?);
            } else {
                let link = program.attach().map_err(failed)?;
                links.push((name, link));
            }
        }
        let handle = |name| pinned_or_loaded(&skeleton, name);
        let mut enforcer = Self {
            live: handle("live")?,
            labels: handle("labels")?,
            containers: handle("containers")?,
            entrances: handle("entrances")?,
            linked_files: handle("linked_files")?,
            undecided: handle("undecided")?,
            guarded: Guarded { entries: handle("guarded")?, devices: handle("guarded_devices")? },
            events: handle("events")?,
            counters: handle("counters")?,
            attached: Attached::of(links.iter().map(|(_, link)| link))?,
            generation: 0,
            verified_instructions: verified_instructions(&links, &judges),
            iterators: iterators.into_values().collect(),
            links: Vec::new(),
            directory: directory.map(Path::to_owned),
            took_over: false,
        };
        enforcer.iterate(position(NAMESPACES), |_| None)?;
        let mode = skeleton.maps.bss_data.as_ref().map_or(0, |data| data.preempt_mode);
        if preemption::passes_over(mode.checked_sub(1)).map_err(|source| BpfError::Programs { source })? {
            return Err(BpfError::PassesOver);
        }
        let ids = links.iter().chain(&judges).map(|(_, link)| Ok(link.info()?.id));
        let ids = ids.collect::<libbpf_rs::Result<Vec<_>>>();
        enforcer.guarded.add_links(ids.map_err(BpfError::load)?.into_iter())?;
        if let Some(directory) = directory {
            pins::pin(&mut skeleton, &mut links, &mut judges, directory)?;
        }
        enforcer.links = links.into_iter().chain(judges).map(|(_, link)| link).collect();
        enforcer.guard_itself()?;
        Ok(enforcer)
    }

    fn take_over(directory: &Path, pins: &Path) -> Result<Self, BpfError> {
        let open = |name: &'static str| {
            MapHandle::from_pinned_path(pins.join("maps").join(name))
                .map_err(|source| BpfError::Map { map: name, source })
        };
        let iterator = |name: &&str| {
            let path = pins.join("programs").join(name);
            let program = pinned_program(&path).map_err(|source| pin_error(&path, source))?;
            Iterator::of(program.as_fd()).map_err(|source| BpfError::Iterator { source })
        };
        let mut enforcer = Self {
            live: open("live")?,
            labels: open("labels")?,
            containers: open("containers")?,
            entrances: open("entrances")?,
            linked_files: open("linked_files")?,
            undecided: open("undecided")?,
            guarded: Guarded { entries: open("guarded")?, devices: open("guarded_devices")? },
            events: open("events")?,
            counters: open("counters")?,
            attached: Attached::pinned(&pins.join("links"))?,
            iterators: ITERATORS.iter().map(iterator).collect::<Result<_, _>>()?,
            generation: 0,
            links: Vec::new(),
            directory: Some(directory.to_owned()),
            took_over: true,
            verified_instructions: Vec::new(),
        };
        enforcer.generation = enforcer.live_generation()?;
        enforcer.guard_itself()?;
        Ok(enforcer)
    }

    /// Registers the links of this process's iterators and the pin directory as guarded. The links of the
    /// hooks are registered when they are made.
    fn guard_itself(&self) -> Result<(), BpfError> {
        let ids = self.iterators.iter().map(Iterator::id).collect::<Result<Vec<_>, _>>();
        self.guarded.add_links(ids.map_err(|source| BpfError::Iterator { source })?.into_iter())?;
        self.directory.as_deref().map_or(Ok(()), |directory| self.guarded.add_pins(directory))
    }

    /// Protects this process and the given files or whole directories from the tasks of containers: they
    /// cannot end, stop or trace the process, nor write, remove or move the files. What an earlier process
    /// registered is no longer protected. A path that does not exist is skipped.
    pub fn guard_agent(&self, paths: &[&Path]) -> Result<(), BpfError> {
        self.guarded.set_agent(self.directory.as_deref(), std::process::id(), paths)
    }

    /// Returns whether the programs were already running.
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// Returns the number of the live generation; 0 if there is none, or only that of [`prove`](Self::prove).
    pub fn generation(&self) -> u32 {
        self.generation
    }

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

    /// Makes a generation live without comparing its number, and leaves other versions alone.
    pub(crate) fn make_live(&mut self, generation: &Generation<'_>) -> Result<(), BpfError> {
        let words = generation.words()?;
        let image = image_map(&words).map_err(|source| BpfError::Map { map: "live", source })?;
        for (number, domain, tree) in generation.domains {
            self.name_linked_files(generation.id, *number, domain, tree)?;
            self.record_entry_root(*number, tree)?;
        }
        self.iterate(position(NAMESPACES), |_| None)?;
        self.live
            .update(&0u32.to_ne_bytes(), &image.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| BpfError::Map { map: "live", source })?;
        // A decision that began under the previous generation may still look up its linked files. Nothing
        // uses those of earlier generations.
        let last = self.generation;
        self.generation = generation.id;
        self.forget_linked_files_before(last)
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
    fn set_entry_root(&self, domain: u32, mount_namespace: u32) -> libbpf_rs::Result<()> {
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
    fn live_generation(&self) -> Result<u32, BpfError> {
        let look = || {
            let Some(id) = self.live.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)? else { return Ok(0) };
            let image = MapHandle::from_map_id(leading_u32(&id))?;
            let page = image.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
            Ok(page.and_then(|page| generation_of(&page)).unwrap_or(0))
        };
        look().map_err(|source| BpfError::Map { map: "live", source })
    }

    /// Puts one task (not its other threads) and all its later children into a domain.
    pub fn label(&self, task: BorrowedFd<'_>, domain: u32) -> Result<(), BpfError> {
        put_label(&self.labels, task, domain)
    }

    /// Returns a [`Labeller`], for a forked process that has not started its program yet.
    pub fn labeller(&self) -> Result<Labeller, BpfError> {
        let labels = MapHandle::try_from(&self.labels);
        labels.map(Labeller).map_err(|source| BpfError::Map { map: "labels", source })
    }

    /// Removes the label of one task, which is then under the host's rules.
    pub fn unlabel(&self, task: BorrowedFd<'_>) -> Result<(), BpfError> {
        self.labels
            .delete(&task.as_raw_fd().to_ne_bytes())
            .map_err(|source| BpfError::Map { map: "labels", source })
    }

    /// Opens the reading end of the ring buffer, where unread events wait as long as they fit.
    pub fn events(&self) -> Result<Events, BpfError> {
        let map =
            MapHandle::try_from(&self.events).map_err(|source| BpfError::Map { map: "events", source })?;
        Events::new(map)
    }

    /// Puts those events into the ring buffer that wait until the kernel knows whether a path existed
    /// (`path/undecided.bpf.h`). The reader of the ring buffer must call this every second.
    pub fn settle(&self) -> Result<(), BpfError> {
        let list = self.undecided.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        let list = list.map_err(|source| BpfError::Map { map: "undecided", source })?;
        match list {
            Some(list) if leading_u32(&list) > 0 => self.iterate(position(SETTLE), |_| None),
            _ => Ok(()),
        }
    }

    /// Returns the containers that the kernel side knows, with their domains.
    pub fn containers(&self) -> Result<BTreeMap<ContainerId, u32>, BpfError> {
        let look = || {
            self.containers
                .keys()
                .filter_map(|key| {
                    let id = ContainerId(key.as_slice().try_into().ok()?);
                    let domain = self.containers.lookup(&key, MapFlags::ANY).transpose()?;
                    Some(domain.map(|domain| (id, leading_u32(&domain))))
                })
                .collect::<libbpf_rs::Result<_>>()
        };
        look().map_err(|source| BpfError::Map { map: "containers", source })
    }

    /// Clears the entry root of a domain, which is another container's from here on.
    pub fn forget_entry_root(&self, domain: u32) -> Result<(), BpfError> {
        self.set_entry_root(domain, 0).map_err(|source| BpfError::Map { map: "entrances", source })
    }

    /// Puts every program that is started in a container from here on into a domain. [`Self::label_running`]
    /// finds those that run there already. If the domain was another container's before, a pass over all
    /// tasks must have found no task in it since.
    pub fn add_container(&self, id: ContainerId, domain: u32) -> Result<(), BpfError> {
        let failed = |map| move |source| BpfError::Map { map, source };
        self.forget_entry_root(domain)?;
        self.containers.update(&id.0, &domain.to_ne_bytes(), MapFlags::ANY).map_err(failed("containers"))
    }

    /// Removes a container. Its remaining tasks stay in its domain.
    pub fn remove_container(&self, id: ContainerId) -> Result<(), BpfError> {
        match self.containers.delete(&id.0) {
            Err(source) if source.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(BpfError::Map { map: "containers", source })
            }
            _ => Ok(()),
        }
    }

    /// Puts tasks of known containers into their container's domain, if they are in no domain yet or in
    /// [`UNIDENTIFIED_DOMAIN`](crate::UNIDENTIFIED_DOMAIN).
    pub fn label_running(&self) -> Result<Labelled, BpfError> {
        self.label_all(LABEL)
    }

    /// Does what [`label_running`](Self::label_running) does, and moves tasks that have been in an
    /// unidentified container for 10 s to the host's rules. Call it only once all containers to be named have
    /// been added.
    pub fn release_unidentified(&self) -> Result<Labelled, BpfError> {
        self.label_all(RELEASE)
    }

    fn label_all(&self, iterator: &str) -> Result<Labelled, BpfError> {
        let which = position(iterator);
        let mut all = Labelled::default();
        for _ in 0..LABEL_PASSES {
            let mut pass = Labelled::default();
            self.iterate(which, |bytes| {
                let task: labelled = contract::read(bytes)?;
                pass.new += usize::from(task.is_new != 0);
                pass.domains.insert(task.domain);
                Some(size_of::<labelled>())
            })?;
            all.new += pass.new;
            all.domains = pass.domains;
            if pass.new == 0 {
                break;
            }
        }
        Ok(all)
    }

    /// Goes through every descriptor and mapping of every task, and passes those that the live rules would
    /// refuse to `each`, as the event of the refused access. Handles that are obtained meanwhile are decided
    /// on where they are obtained. But a task that forks meanwhile can pass its handles to a child that is
    /// not looked at any more.
    pub fn preexisting(&self, mut each: impl FnMut(Event)) -> Result<(), BpfError> {
        (0..HELD).try_for_each(|which| {
            self.iterate(which, |bytes| {
                let (event, length) = Event::decode_first(bytes)?;
                each(event);
                Some(length)
            })
        })
    }

    /// Runs one of [`ITERATORS`] to its end. `take` gets the bytes read so far and returns how many it has
    /// taken, `None` if there are too few.
    fn iterate(&self, which: usize, mut take: impl FnMut(&[u8]) -> Option<usize>) -> Result<(), BpfError> {
        let failed = |source| BpfError::Iterator { source };
        let iterator =
            self.iterators.get(which).ok_or_else(|| failed(io::Error::from(ErrorKind::NotFound)))?;
        let mut iterator = iterator.start().map_err(failed)?;
        let (mut buffer, mut chunk) = (Vec::new(), vec![0; ITERATOR_CHUNK]);
        loop {
            let read = match iterator.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                // EAGAIN: the kernel went through very many objects and has written nothing so far.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            buffer.extend_from_slice(&chunk[..read]);
            let mut at = 0;
            while let Some(length) = take(&buffer[at..]) {
                at += length;
            }
            buffer.drain(..at);
        }
    }

    /// Returns what other versions, whose programs have ended, have left unreported.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, BpfError> {
        self.directory.as_deref().map_or(Ok(Vec::new()), pins::leftovers)
    }

    /// Returns the counts since the programs were loaded, including those under earlier agents.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        Ok(Counters { skipped: self.attached.skipped()?, ..Counters::read(&self.counters)? })
    }

    /// Sets all counters to 0. Call it only while no program counts anything.
    pub(crate) fn reset_counters(&self) -> Result<(), BpfError> {
        let failed = |source| BpfError::Map { map: "counters", source };
        let zeros = vec![vec![0; size_of::<u64>()]; libbpf_rs::num_possible_cpus().map_err(failed)?];
        (0..self.counters.max_entries())
            .try_for_each(|which| self.counters.update_percpu(&which.to_ne_bytes(), &zeros, MapFlags::ANY))
            .map_err(failed)
    }

    /// Ends these programs, but not those of other versions.
    pub fn unload(self) -> Result<(), BpfError> {
        let pins = self.directory.map(|directory| directory.join(VERSION));
        drop(self.links);
        pins.filter(|pins| pins.is_dir()).map_or(Ok(()), |pins| pins::remove(&pins))
    }

    /// Returns how many instructions the verifier processed for each program; empty if the programs were
    /// already running.
    pub fn verified_instructions(&self) -> &[(String, u32)] {
        &self.verified_instructions
    }
}

/// Opens the object with the programs that this kernel has hooks for.
pub(crate) fn open(object: &mut MaybeUninit<OpenObject>) -> Result<OpenArmorSkel<'_>, BpfError> {
    let mut skeleton = ArmorSkelBuilder::default().open(object).map_err(BpfError::load)?;
    hooks::choose(&mut skeleton)?;
    Ok(skeleton)
}

/// Returns the names of the programs for this kernel's hooks.
fn hook_programs() -> Result<Vec<OsString>, BpfError> {
    let mut object = MaybeUninit::uninit();
    let skeleton = open(&mut object)?;
    let programs = skeleton.open_object().progs().filter(|program| program.autoload());
    let names = programs.map(|program| program.name().to_owned());
    Ok(names.filter(|name| ITERATORS.iter().all(|iterator| name != iterator)).collect())
}

fn pinned_or_loaded(skeleton: &ArmorSkel<'_>, name: &'static str) -> Result<MapHandle, BpfError> {
    let map = skeleton.object().maps().find(|map| map.name() == name);
    let map = map.ok_or_else(|| BpfError::load(libbpf_rs::Error::from_raw_os_error(libc::ENOENT)))?;
    MapHandle::try_from(&map).map_err(|source| BpfError::Map { map: name, source })
}

/// Returns the index of an iterator in [`ITERATORS`].
fn position(iterator: &str) -> usize {
    ITERATORS.iter().position(|name| *name == iterator).unwrap_or(ITERATORS.len())
}

fn leading_u32(key: &[u8]) -> u32 {
    key.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// Returns the number of verified instructions by program. The judge is listed once for each time that it was
/// verified.
fn verified_instructions(links: &[(OsString, Link)], judges: &[(OsString, Link)]) -> Vec<(String, u32)> {
    let id = |link: &Link| link.info().ok().map(|info| info.prog_id);
    let mut names: BTreeMap<_, _> =
        judges.iter().filter_map(|(_, link)| Some((id(link)?, JUDGE.to_owned()))).collect();
    names.extend(
        links.iter().filter_map(|(name, link)| Some((id(link)?, name.to_string_lossy().into_owned()))),
    );
    ProgInfoIter::default()
        .filter_map(|info| Some((names.get(&info.id)?.clone(), info.verified_insns)))
        .collect()
}
