//! Tests containers as the kernel side knows them: control groups with a container's id in their names,
//! entered in every way that runtimes enter them. A program that is started in one is under the container's
//! rules from its first instruction on; a task that prepares the container is not.
//!
//! No runtime is needed: the tests make the groups and add the containers to the kernel side, as the agent
//! does.

mod agent;
mod capabilities;
mod entering;
mod generations;
mod handles;
mod leaving;
mod network;
mod node;
mod presets;
mod process;
mod syscalls;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, ColorSetting, Failed, Trial};

use agent::{agents_own, programs_and_maps};
use entering::{
    already_running, first_programs, five_hundred, nested, not_roots, preparation, unidentified, unknown,
};
use generations::{another_version, number_again, pins_gone, swaps};
use handles::brought_along;
use leaving::{left_namespace, no_way_out, other_names, others_namespaces, without_path};
use node::Node;

type Test = fn(&mut Node) -> anyhow::Result<()>;

/// Runs all tests; the output is that of a Rust test.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    if let Err(error) = crate::agent::be_an_agent() {
        eprintln!("armor-guest-tests: {error:#}");
        return ExitCode::from(2);
    }
    let mut arguments = Arguments::from_iter(std::iter::once("armor-guest-tests".to_owned()).chain(args));
    arguments.test_threads = Some(1);
    arguments.color.get_or_insert(ColorSetting::Never);
    let node = match Node::new() {
        Ok(node) => Arc::new(Mutex::new(node)),
        Err(error) => {
            eprintln!("armor-guest-tests: {error:#}");
            return ExitCode::from(2);
        }
    };
    let tests: [(&str, Test); 26] = [
        ("first_programs_are_under_their_containers_rules", first_programs),
        ("five_hundred_containers_at_once_are_under_rules", five_hundred),
        ("only_exact_and_known_ids_count", unknown),
        ("unidentified_containers_are_under_rules_until_named_or_released", unidentified),
        ("only_groups_named_by_root_count", not_roots),
        ("tasks_preparing_a_container_are_not_under_its_rules", preparation),
        ("tasks_cannot_leave_their_containers_rules", no_way_out),
        ("other_paths_are_blocked_from_the_first_program_on", other_names),
        ("another_mount_namespace_does_not_become_the_entry_root", left_namespace),
        ("mount_namespaces_of_others_cannot_be_opened", others_namespaces),
        ("running_tasks_get_the_rules_of_a_container_added_later", already_running),
        ("preexisting_handles_are_found_once_the_first_program_runs", brought_along),
        ("the_outermost_of_nested_containers_counts", nested),
        ("a_reused_domain_keeps_nothing_of_its_last_container", number_again),
        ("a_swap_leaves_no_gap_and_no_old_verdict", swaps),
        ("only_root_on_the_host_starts_programs_without_a_path", without_path),
        ("containers_cannot_touch_the_agent_s_process_and_files", agents_own),
        ("programs_maps_and_pins_are_the_agent_s_alone", programs_and_maps),
        ("an_overlay_s_rights_are_no_use_of_a_container_s", capabilities::overlay),
        ("the_host_s_rules_do_not_lock_the_next_agent_out", capabilities::next_agent),
        ("a_program_for_capabilities_is_attached_while_needed", capabilities::on_demand),
        ("system_calls_are_reported_while_rules_name_them", syscalls::on_demand),
        ("programs_from_outside_get_no_terminal", presets::sessions),
        ("sockets_from_before_are_found_and_refused", network::sockets_from_before),
        ("a_new_version_keeps_labels_and_unread_alerts", another_version),
        ("a_version_that_lacks_a_pin_is_loaded_anew", pins_gone),
    ];
    let trials = tests.map(|(name, test)| {
        let node = Arc::clone(&node);
        Trial::test(format!("containers::{name}"), move || {
            let mut node = node.lock().map_err(|_| Failed::from("a test before panicked"))?;
            let outcome = test(&mut node);
            node.forget_all()?;
            outcome.map_err(|error| format!("{error:#}").into())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
