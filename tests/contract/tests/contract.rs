//! What clients may count on and must cope with, held against the real CSS and ESS and against the development hub.
//!
//! Each behaviour is one test per hub, `real::name` and `dev::name`, with a hub of its own. `--no-real-hub` (or
//! `ARMOR_NO_REAL_HUB=1`) leaves the real one out, for people without Go, and names what was left out.

mod behaviour;

use armor_contract_tests::{Client, DevHub, DevHubConfig, Hub, RealHub, Role};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// What a behaviour's test gets: a hub with one service on its node and one operator.
pub struct Fixture<H> {
    /// The hub itself.
    pub hub: H,
    /// The service `myorg/hzn-armor`, version 1.5.0, at the ESS.
    pub service: Client,
    /// An ordinary user of the org at the CSS.
    pub operator: Client,
}

/// Errors of all sorts, as text.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl<H: Hub> Fixture<H> {
    fn new(hub: H) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let service = hub.add_service("hzn-armor", "1.5.0", "service-token")?;
        let operator = hub.add_user("operator", "operator-password", Role::User)?;
        Ok(Self {
            service: Client::ess(&hub, &service, "service-token")?,
            operator: Client::css(&hub, &operator, "operator-password")?,
            hub,
        })
    }
}

fn run<F: Future<Output = Outcome>>(test: impl FnOnce() -> F) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(test()).map_err(|error| error.to_string().into())
}

macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        fn trials() -> Vec<Trial> {
            vec![$(
                Trial::test(concat!("dev::", stringify!($name)), || run(|| async {
                    let dir = tempfile::tempdir()?;
                    let mut config = DevHubConfig::new(dir.path());
                    config.agbot = false;
                    behaviour::$name(Fixture::new(DevHub::start(config).await?)?).await
                })),
                Trial::test(concat!("real::", stringify!($name)), || run(|| async {
                    let dir = tempfile::tempdir()?;
                    behaviour::$name(Fixture::new(RealHub::start(dir.path()).await?)?).await
                })),
            )*]
        }
    };
}

behaviours![
    empty_list_is_404,
    unknown_object_is_403_to_a_service,
    bad_credentials_are_403,
    old_token_works_until_the_new_one_is_used,
    certificate_needs_pinning,
    bundle_reaches_the_service,
    broadcast_reaches_the_node,
    received_hides_and_keeps,
    consumed_removes_and_an_update_returns,
    consuming_hangs_without_hub,
    consuming_without_hub_outlives_an_ess_restart,
    acknowledging_a_deletion_hangs_without_hub,
    deletion_stays_listed_until_acknowledged,
    deletion_of_what_was_consumed,
    id_is_blocked_until_the_deletion_is_acknowledged,
    live_object_cannot_be_acknowledged_as_deleted,
    republished_bytes_are_a_new_instance,
    meta_only_update_keeps_data,
    visibility_follows_service_and_version,
    removed_service_sees_a_deletion,
    moved_destination_sees_a_deletion,
    destinations_are_strings_of_registered_nodes,
    pss_verifies_at_any_salt_length,
    bad_signature_is_refused,
    incomplete_signature_is_not_checked,
    names_are_limited,
    ess_refuses_what_only_the_hub_may_set,
    bundle_survives_an_ess_restart_without_hub,
    alert_goes_all_the_way,
    alert_origin_is_claimed_and_owner_is_not,
    consumed_id_cannot_be_used_again,
    received_by_the_hub_is_not_reported,
    alert_deleted_at_the_hub_stays_ready,
    alert_deleted_by_the_service,
    alert_put_again_replaces,
    puts_hang_without_hub_and_arrive_later,
    queue_is_lost_when_the_ess_restarts,
    alert_under_a_hub_made_id_is_not_taken,
    squatted_id_refuses_the_hub,
    other_service_may_meddle_with_alerts,
    any_user_may_meddle_with_alerts,
    large_objects_pass,
    range_upload_fails_at_the_ess,
];

fn main() -> ExitCode {
    let (ours, others): (Vec<_>, Vec<_>) = std::env::args().partition(|argument| argument == "--no-real-hub");
    let mut arguments = Arguments::from_iter(others);
    // Tests mostly wait for polls, so more of them run at once than there are processors.
    arguments.test_threads.get_or_insert(8);
    let mut trials = trials();
    trials.extend(behaviour::development::trials());
    if !ours.is_empty() || std::env::var_os("ARMOR_NO_REAL_HUB").is_some_and(|value| value == "1") {
        let (left_out, kept): (Vec<_>, Vec<_>) =
            trials.into_iter().partition(|trial| trial.name().starts_with("real::"));
        for trial in left_out {
            eprintln!("left out (no real hub): {}", trial.name());
        }
        trials = kept;
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
