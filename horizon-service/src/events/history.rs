//! Stores what must be known of the past to report on events: the names of each generation's rules, and the
//! totals already reported.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::disk::{DiskError, read_json, replace, to_json};
use crate::events::alerts::RuleTable;

const GENERATION_FORMAT: &str = "horizon-armor.generation/3";
const COUNTERS_FORMAT: &str = "horizon-armor.counters/1";
/// Number of generations whose names are kept, because the ring buffer may still hold events of the last
/// ones.
const KEPT_GENERATIONS: usize = 8;

#[derive(Serialize, Deserialize)]
struct GenerationFile {
    format: String,
    table: RuleTable,
}

/// `ReportedTotals` are the totals that were already reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedTotals {
    format: String,
    /// Number of alerts suppressed by rate limits.
    pub suppressed: u64,
    /// Number of alerts lost in the kernel.
    pub dropped: u64,
    /// Number of times that the kernel skipped a BPF program.
    #[serde(default)]
    pub skipped: u64,
    /// Names and serials of the bundles for which preexisting handles were reported.
    #[serde(default)]
    pub held: String,
    /// Number of programs that had entered containers at that time.
    #[serde(default)]
    pub entered: u64,
}

/// `History` is the part of the state directory that is about the past.
#[derive(Debug, Clone)]
pub struct History {
    dir: PathBuf,
}

impl History {
    /// Returns the history in a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.to_owned() }
    }

    /// Stores the names of a generation's rules, and deletes old ones.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the file cannot be written.
    pub fn store_generation(&self, id: u32, table: &RuleTable) -> Result<(), DiskError> {
        let path = self.generation_file(id);
        let file = GenerationFile { format: GENERATION_FORMAT.to_owned(), table: table.clone() };
        replace(&path, &to_json(&path, &file)?)?;
        let mut ids = self.generations();
        ids.sort_unstable();
        for old in ids.iter().rev().skip(KEPT_GENERATIONS) {
            let _ = fs::remove_file(self.generation_file(*old));
        }
        Ok(())
    }

    /// Returns the names of a generation's rules, if they are still known.
    pub fn generation(&self, id: u32) -> Option<RuleTable> {
        let path = self.generation_file(id);
        match read_json::<GenerationFile>(&path, |file| &file.format, GENERATION_FORMAT) {
            Ok(file) => file.map(|file| file.table),
            Err(error) => {
                tracing::warn!("{error}: alerts of generation {id} come without the names of their rules");
                None
            }
        }
    }

    /// Returns the highest stored generation, or 0 if there is none.
    pub fn last_generation(&self) -> u32 {
        self.generations().into_iter().max().unwrap_or(0)
    }

    fn generations(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.dir.join("generations")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok()).collect()
    }

    fn generation_file(&self, id: u32) -> PathBuf {
        self.dir.join("generations").join(format!("{id}.json"))
    }

    /// Returns the totals already reported, or zeros if they are not known.
    pub fn reported(&self) -> ReportedTotals {
        let path = self.dir.join("counters.json");
        let reported = read_json::<ReportedTotals>(&path, |reported| &reported.format, COUNTERS_FORMAT);
        reported
            .unwrap_or_else(|error| {
                tracing::warn!("{error}: alerts kept back or lost earlier are reported again");
                None
            })
            .unwrap_or_default()
    }

    /// Stores the reported totals.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the file cannot be written.
    pub fn store_reported(&self, reported: &ReportedTotals) -> Result<(), DiskError> {
        let path = self.dir.join("counters.json");
        let reported = ReportedTotals { format: COUNTERS_FORMAT.to_owned(), ..reported.clone() };
        replace(&path, &to_json(&path, &reported)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use armor_policy::decision::RuleInfo;

    fn history(state_dir: &Path) -> History {
        fs::create_dir(state_dir.join("generations")).unwrap();
        History::new(state_dir)
    }

    #[test]
    fn the_names_of_the_last_generations_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let history = history(dir.path());
        assert_eq!(history.last_generation(), 0);
        let rules = vec![RuleInfo { policy: "p".into(), ..RuleInfo::default() }];
        let table =
            RuleTable { bundles: [("edge".to_owned(), 1)].into(), rules: vec![rules], domains: Vec::new() };
        for id in 1..=12 {
            history.store_generation(id, &table).unwrap();
        }
        assert_eq!((history.last_generation(), history.generation(12)), (12, Some(table)));
        assert_eq!(history.generation(1), None);
        fs::write(dir.path().join("generations/11.json"), "{").unwrap();
        assert_eq!(history.generation(11), None);
    }

    #[test]
    fn reported_totals_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let history = history(dir.path());
        history
            .store_reported(&ReportedTotals { suppressed: 5, dropped: 2, ..ReportedTotals::default() })
            .unwrap();
        let reported = history.reported();
        assert_eq!((reported.suppressed, reported.dropped), (5, 2));
        fs::write(dir.path().join("counters.json"), "x").unwrap();
        assert_eq!(history.reported(), ReportedTotals::default());
    }
}
