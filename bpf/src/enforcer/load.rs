//! Loads and attaches the programs, or takes over the pinned ones.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use armor_policy::escaped_path;
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapHandle, OpenObject};

use super::Enforcer;
use super::on_demand::{OnDemand, is_on_demand};
use super::syscalls::{self, Syscalls};
use crate::bpffs;
use crate::error::{BpfError, pin_error};
use crate::guard::Guarded;
use crate::hooks;
use crate::iterator::{ITERATORS, Iterator, NAMESPACES, position};
use crate::judge::{self, JUDGE};
use crate::output;
use crate::pins::{self, VERSION};
use crate::preemption;
use crate::program;
use crate::raw;
use crate::skeleton::{ArmorSkel, ArmorSkelBuilder, OpenArmorSkel};
use crate::skipped::Attached;
use crate::symbols;

impl Enforcer {
    /// Makes the programs run. With a directory on a bpf filesystem, takes over the programs that are pinned
    /// below it, or loads and pins them there; without a directory, they end with this process.
    pub fn attach(directory: Option<&Path>) -> Result<Self, BpfError> {
        output::listen();
        let Some(directory) = directory else { return Self::load(None) };
        bpffs::require_bpffs(directory)?;
        fs::create_dir_all(directory).map_err(|source| pin_error(directory, source))?;
        let pins = directory.join(VERSION);
        if !pins.is_dir() {
            return Self::load(Some(directory));
        }
        if pins::are_whole(&pins)? {
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
            } else if !is_on_demand(&name) {
                let link = program.attach().map_err(failed)?;
                links.push((name, link));
            }
        }
        let loaded = |name: &'static str| {
            let program = skeleton.object().progs().find(|program| program.name() == name);
            let missing = || BpfError::load(libbpf_rs::Error::from_raw_os_error(libc::ENOENT));
            let program = program.ok_or_else(missing)?;
            program.as_fd().try_clone_to_owned().map_err(|error| BpfError::load(error.into()))
        };
        let pins = directory.map(|directory| directory.join(VERSION));
        let on_demand = OnDemand::all(pins.as_deref(), loaded)?;
        let syscalls = Syscalls::new(loaded(syscalls::PROGRAM)?, pins.as_deref());
        let handle = |name| pinned_or_loaded(&skeleton, name);
        let mut enforcer = Self {
            live: handle("live")?,
            host_ruled: handle("host_ruled")?,
            labels: handle("labels")?,
            containers: handle("containers")?,
            entrances: handle("entrances")?,
            bounding_sets: handle("bounding_sets")?,
            linked_files: handle("linked_files")?,
            undecided: handle("undecided")?,
            guarded: Guarded { entries: handle("guarded")?, devices: handle("guarded_devices")? },
            events: handle("events")?,
            counters: handle("counters")?,
            attached: Attached::of(links.iter().map(|(_, link)| link))?
                .and(on_demand.iter().map(OnDemand::program))?,
            on_demand,
            syscalls,
            generation: 0,
            verified_instructions: verified_instructions(&skeleton, &judges),
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
            let program = raw::pinned(&path).map_err(|source| pin_error(&path, source))?;
            Iterator::of(program.as_fd()).map_err(|source| BpfError::Iterator { source })
        };
        let on_demand = OnDemand::pinned(pins)?;
        let syscalls = Syscalls::pinned(pins)?;
        let mut enforcer = Self {
            live: open("live")?,
            host_ruled: open("host_ruled")?,
            labels: open("labels")?,
            containers: open("containers")?,
            entrances: open("entrances")?,
            bounding_sets: open("bounding_sets")?,
            linked_files: open("linked_files")?,
            undecided: open("undecided")?,
            guarded: Guarded { entries: open("guarded")?, devices: open("guarded_devices")? },
            events: open("events")?,
            counters: open("counters")?,
            attached: Attached::pinned(&pins.join("links"))?.and(on_demand.iter().map(OnDemand::program))?,
            on_demand,
            syscalls,
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
}

/// Opens the object with the programs that this kernel has hooks for.
pub(crate) fn open(object: &mut MaybeUninit<OpenObject>) -> Result<OpenArmorSkel<'_>, BpfError> {
    let mut skeleton = ArmorSkelBuilder::default().open(object).map_err(BpfError::load)?;
    hooks::choose(&mut skeleton)?;
    Ok(skeleton)
}

fn pinned_or_loaded(skeleton: &ArmorSkel<'_>, name: &'static str) -> Result<MapHandle, BpfError> {
    let map = skeleton.object().maps().find(|map| map.name() == name);
    let map = map.ok_or_else(|| BpfError::load(libbpf_rs::Error::from_raw_os_error(libc::ENOENT)))?;
    MapHandle::try_from(&map).map_err(|source| BpfError::Map { map: name, source })
}

/// Returns the number of verified instructions by program. The judge is listed once for each time that it was
/// verified.
fn verified_instructions(programs: &ArmorSkel<'_>, judges: &[(OsString, Link)]) -> Vec<(String, u32)> {
    let judges = judges.iter().filter_map(|(_, link)| Some((link.info().ok()?.prog_id, JUDGE.to_owned())));
    let programs = programs.object().progs().filter(|program| program.autoload()).filter_map(|program| {
        let name = program.name().to_string_lossy().into_owned();
        ITERATORS.iter().all(|iterator| name != *iterator).then_some(())?;
        Some((program::info(program.as_fd()).ok()?.id, name))
    });
    let names: BTreeMap<u32, String> = judges.chain(programs).collect();
    ProgInfoIter::default()
        .filter_map(|info| Some((names.get(&info.id)?.clone(), info.verified_insns)))
        .collect()
}
