//! These tests check what clients may count on and must cope with, on the real CSS and ESS and on the
//! development hub.
//!
//! Each behaviour is one test per hub, `real::name` and `dev::name`, with its own hub. `ARMOR_NO_REAL_HUB=1`
//! skips the real one, for people without Go, and lists the skipped tests.

mod behaviour;

use armor_contract_tests::{both_hubs, no_hub, run_all};
use behaviour::*;
use std::process::ExitCode;

fn main() -> ExitCode {
    let both = both_hubs![
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
        second_deletion_keeps_the_first_from_the_node,
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
        alert_deleted_before_its_turn_arrives_as_deleted,
        alert_deleted_at_both_ends_is_gone,
        alert_put_again_replaces,
        puts_hang_without_hub_and_arrive_later,
        queue_is_lost_when_the_ess_restarts,
        alert_under_a_hub_made_id_is_not_taken,
        squatted_id_refuses_the_hub,
        other_service_may_meddle_with_alerts,
        any_user_may_meddle_with_alerts,
        object_for_a_type_without_nodes_stays,
        data_changes_hands_without_the_owner,
        large_objects_pass,
        range_upload_fails_at_the_ess,
        certificate_can_be_replaced,
        ess_can_be_away,
    ];
    run_all([both, no_hub![control_port_takes_the_hub_away, agbot_places_what_fits_the_node]])
}
