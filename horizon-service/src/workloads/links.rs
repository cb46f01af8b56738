//! Resolves the paths of rules, and finds symlinks in them that are switched while the rules are in force, such as `/srv/current`.
//!
//! The kernel side decides by the targets that symlinks had when the tables were built. So they are resolved
//! again periodically, on a thread of their own: a hanging filesystem delays only this. Changed targets lead
//! to a new generation. One pass resolves a bounded number of paths, taking containers in turn.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use armor_policy::model::{MAX_PATH, Source};
use armor_policy::path::{Section, Target, path_rules};
use armor_policy::{Links, Policy, literal_paths};

use crate::workloads::root::Root;
use crate::workloads::workload::Workload;

/// Interval between two passes.
pub const LOOK: Duration = Duration::from_secs(2);
/// Maximum number of containers' paths in one pass, unless a single container has more.
const PATHS: usize = 2000;

/// `SharedLinks` are links that tables were built with.
pub type SharedLinks = Arc<Links>;

/// `Whose` names the workload in whose root paths are resolved.
#[derive(Debug, Clone)]
pub enum Whose {
    /// The host, whose root is that of this process.
    Host(&'static str),
    /// A container.
    Container(Arc<Workload>),
}

/// `Watched` is a set of paths to resolve again.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The workload of the paths.
    pub whose: Whose,
    /// The policies that contain the paths.
    pub policies: Vec<Arc<Policy>>,
    /// The targets when the tables were built.
    pub links: SharedLinks,
}

impl Watched {
    /// Returns the paths with a different target, each with its present target; empty if nothing has changed.
    pub fn moved(&self) -> Vec<String> {
        let roots = match &self.whose {
            Whose::Host(process) => vec![Root::of_process(process)],
            Whose::Container(workload) => workload.roots(),
        };
        let policies: Vec<&Policy> = self.policies.iter().map(|policy| &**policy).collect();
        let now = links(&roots, &policies);
        let mut paths: Vec<&String> = now.keys().chain(self.links.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.retain(|path| now.get(*path) != self.links.get(*path));
        let ends = |path| now.get(path).map_or_else(|| String::clone(path), |ends| ends.join(" and "));
        paths.into_iter().map(|path| format!("{path} -> {}", ends(path))).collect()
    }
}

/// Resolves the paths of `policies`. A program that is itself a symlink is not followed, because a rule for
/// `/bin/wget` would then cover all of `/bin/busybox`. A source, any directory and any path of a `file` rule are
/// followed.
pub(super) fn links(roots: &[Root], policies: &[&Policy]) -> Links {
    let mut followed: BTreeSet<&str> = BTreeSet::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        followed.extend(rule.common.sources.iter().map(Source::path));
    }
    for rule in path_rules(policies) {
        if let (Section::File, Target::Path(path)) = (rule.section, &rule.target) {
            followed.insert(path);
        }
    }
    let resolve = |root: &Root, path: &String| {
        let mut to = root.resolve(path, followed.contains(path.as_str()));
        let end = root.resolve(path, true);
        if root.is_dir(&end) {
            to = end;
        }
        // No rule can be about a longer path, and whoever makes a link must not decide whether rules compile.
        to.into_os_string().into_string().ok().filter(|to| to != path && to.len() <= MAX_PATH)
    };
    let resolve_in_all = |path: String| {
        let mut ends: Vec<String> = roots.iter().filter_map(|root| resolve(root, &path)).collect();
        ends.sort_unstable();
        ends.dedup();
        (!ends.is_empty()).then_some((path, ends))
    };
    literal_paths(policies).into_iter().filter_map(resolve_in_all).collect()
}

/// Returns the next containers in turn, as many as have [`PATHS`] paths together.
pub fn in_turn(containers: Vec<Watched>, turn: &mut usize) -> Vec<Watched> {
    let count = containers.len();
    let mut paths = 0;
    let mut taken = Vec::new();
    for watched in containers.iter().cycle().skip(turn.checked_rem(count).unwrap_or(0)).take(count) {
        let policies: Vec<&Policy> = watched.policies.iter().map(|policy| &**policy).collect();
        paths += literal_paths(&policies).len();
        if paths > PATHS && !taken.is_empty() {
            break;
        }
        taken.push(watched.clone());
    }
    *turn = turn.wrapping_add(taken.len()).checked_rem(count).unwrap_or(0);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::testing::parse;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn policy(paths: &[String]) -> Arc<Policy> {
        let paths: Vec<String> = paths.iter().map(|path| format!("{{path: {path}}}")).collect();
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: \
             {{matchLabels: {{app: x}}}}\n  file: {{matchPaths: [{}]}}\n",
            paths.join(", ")
        );
        Arc::new(armor_policy::parse("p.yaml", &text).unwrap().remove(0))
    }

    #[test]
    fn a_link_that_is_switched_made_or_gone_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        symlink("v1", at("current")).unwrap();
        let file = at("current/key");
        let policies = vec![policy(std::slice::from_ref(&file))];
        let links = |policies: &[Arc<Policy>]| -> SharedLinks {
            Arc::new(links(&[Root::of_process("self")], &[&policies[0]]))
        };
        let watch = |policies: &Vec<Arc<Policy>>| Watched {
            whose: Whose::Host("self"),
            policies: policies.clone(),
            links: links(policies),
        };
        let watched = watch(&policies);
        assert_eq!(watched.moved(), Vec::<String>::new());
        fs::remove_file(at("current")).unwrap();
        symlink("v2", at("current")).unwrap();
        assert_eq!(watched.moved(), [format!("{file} -> {}", at("v2/key"))]);
        let watched = watch(&policies);
        fs::remove_file(at("current")).unwrap();
        assert_eq!(watched.moved(), [format!("{file} -> {file}")]);
        let watched = watch(&policies);
        fs::create_dir(at("current")).unwrap();
        symlink("../v1", &file).unwrap();
        assert_eq!(watched.moved(), [format!("{file} -> {}", at("v1"))]);
    }

    #[test]
    fn many_containers_take_turns() {
        let paths: Vec<String> = (0..PATHS / 2).map(|number| format!("/p{number}")).collect();
        let policies = vec![policy(&paths)];
        let watched = |name: usize| Watched {
            whose: Whose::Container(Arc::new(Workload { name: name.to_string(), ..Workload::default() })),
            policies: policies.clone(),
            links: SharedLinks::default(),
        };
        let all: Vec<Watched> = (0..5).map(watched).collect();
        let mut turn = 0;
        let mut names = || -> Vec<String> {
            let name = |watched: Watched| match watched.whose {
                Whose::Container(workload) => workload.name.clone(),
                Whose::Host(_) => String::new(),
            };
            in_turn(all.clone(), &mut turn).into_iter().map(name).collect()
        };
        assert_eq!([names(), names(), names()], [["0", "1"], ["2", "3"], ["4", "0"]]);
        assert!(in_turn(Vec::new(), &mut turn).is_empty());
    }

    #[test]
    fn links_resolve_inside_the_root_and_programs_stay_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path().to_owned());
        fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        fs::write(dir.path().join("usr/bin/dash"), "").unwrap();
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        symlink("/usr/bin/dash", dir.path().join("usr/bin/sh")).unwrap();
        symlink("/loop", dir.path().join("loop")).unwrap();
        let policies = parse(
            "  process: {matchPaths: [{path: /bin/sh}, {path: /bin/wget, fromSource: [{path: /bin/sh2}]}], \
             matchDirectories: [{dir: /bin/}]}\n  file: {matchPaths: [{path: /usr/bin/sh}, {path: /loop}, {path: /no/such}]}\n",
        );
        let all: Vec<&Policy> = policies.iter().collect();
        let found = links(std::slice::from_ref(&root), &all);
        let expected = [
            ("/bin", "/usr/bin"),
            ("/bin/sh", "/usr/bin/sh"),
            ("/bin/sh2", "/usr/bin/sh2"),
            ("/bin/wget", "/usr/bin/wget"),
            ("/usr/bin/sh", "/usr/bin/dash"),
        ];
        assert_eq!(found, expected.map(|(from, to)| (from.to_owned(), vec![to.to_owned()])).into());
        let sourced = parse("  process: {matchPaths: [{path: /x, fromSource: [{path: /bin/sh}]}]}\n");
        assert_eq!(links(std::slice::from_ref(&root), &[&sourced[0]])["/bin/sh"], ["/usr/bin/dash"]);
        assert_eq!(root.resolve("/bin/../../etc/x", true), Path::new("/etc/x"));
    }

    #[test]
    fn a_link_to_where_no_rule_can_lead_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let policies = parse("  file: {matchPaths: [{path: /app/secret}]}\n");
        let of = |target: String| {
            let _ = fs::remove_file(dir.path().join("app"));
            symlink(target, dir.path().join("app")).unwrap();
            links(&[Root::at(dir.path().to_owned())], &[&policies[0]])
        };
        assert!(of(format!("/{}", "a/".repeat(MAX_PATH / 2 - 1))).is_empty());
        let found = of("/b".to_owned());
        assert_eq!(found["/app/secret"], ["/b/secret"]);
    }

    #[test]
    fn a_symlink_of_the_image_keeps_its_target_after_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, image) = (dir.path().join("upper"), dir.path().join("image"));
        fs::create_dir_all(image.join("usr/bin")).unwrap();
        fs::write(image.join("usr/bin/wget"), "").unwrap();
        symlink("usr/bin", image.join("bin")).unwrap();
        fs::create_dir(&upper).unwrap();
        let workload = Workload { layers: vec![upper.clone(), image], ..Workload::default() };
        let policies = parse("  process: {matchPaths: [{path: /bin/wget}]}\n");
        let found = || links(&workload.roots(), &[&policies[0]]).remove("/bin/wget");
        assert_eq!(found(), Some(vec!["/usr/bin/wget".to_owned()]));
        fs::create_dir(upper.join("bin")).unwrap();
        assert_eq!(found(), Some(vec!["/usr/bin/wget".to_owned()]), "in its place is a directory");
        fs::remove_dir(upper.join("bin")).unwrap();
        symlink("/opt", upper.join("bin")).unwrap();
        assert_eq!(found(), Some(vec!["/opt/wget".to_owned(), "/usr/bin/wget".to_owned()]));
    }
}
