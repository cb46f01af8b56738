//! Ties the two sides of `core/contract.h` together: enums and structs reach Rust from the object's type
//! information, and what the policy compiler defines is asserted to be what the kernel side believes.

use armor_policy::SUBJECT_NONE;
use armor_policy::automaton::{Jump, Slot};
use armor_policy::decision::{Decision, Verdict};
use armor_policy::destination::{ENTRIES, Transport};
use armor_policy::network::SocketKind;
use armor_policy::path::{
    MAX_ARG_BYTES, MAX_ARGS, OBJECT_ANONYMOUS, OBJECT_NONE, OBJECT_UNRESOLVED, PERMISSIONS, Permission,
};
use armor_policy::preset::Preset;
use plain::Plain;

pub(crate) use crate::skeleton::types::{
    argument_limit, call_base, call_cookie, capability_event, container_id, counter, device_kind, dns_event,
    domain_flag, domain_number, event, event_header, event_kind, event_size, guarded_key, guarded_kind,
    guarded_reach, guarded_slots, hook, image_automaton, image_destinations, image_domain, image_kinds,
    image_size, label, labelled, linked_key, object_class, path_event, permission, preset, reserved_rule,
    socket_event, socket_kind, subject_class, syscall_event, table_bit, transport, verdict,
};

const _: () = {
    assert!(permission::READ.0 == Permission::Read as u32);
    assert!(permission::WRITE.0 == Permission::Write as u32);
    assert!(permission::EXEC.0 == Permission::Exec as u32);
    assert!(permission::MAP.0 == Permission::Map as u32);
    assert!(permission::PERMISSIONS.0 as usize == PERMISSIONS.len());

    assert!(verdict::VERDICT_ALLOW.0 == Verdict::Allow as u32);
    assert!(verdict::VERDICT_AUDIT.0 == Verdict::Audit as u32);
    assert!(verdict::VERDICT_BLOCK.0 == Verdict::Block as u32);
    assert!(Decision::new(Verdict::Block, 0).0 == verdict::VERDICT_BLOCK.0 << table_bit::VERDICT_SHIFT.0);
    assert!(Decision::MAX_RULE == (1 << table_bit::VERDICT_SHIFT.0) - 1);
    assert!(Decision::RULE_DEFAULT == reserved_rule::RULE_POSTURE.0);
    assert!(Decision::RULE_UNRESOLVED == reserved_rule::RULE_UNRESOLVED.0);
    assert!(reserved_rule::RULE_AGENT.0 == Decision::MAX_RULE);

    assert!(object_class::OBJECT_NONE.0 == OBJECT_NONE as u32);
    assert!(object_class::OBJECT_ANONYMOUS.0 == OBJECT_ANONYMOUS as u32);
    assert!(object_class::OBJECT_UNRESOLVED.0 == OBJECT_UNRESOLVED as u32);
    assert!(subject_class::SUBJECT_NONE.0 == SUBJECT_NONE as u32);
    // No class that the compiler assigns is the conflict's.
    assert!(subject_class::SUBJECT_CONFLICT.0 == u16::MAX as u32);

    assert!(argument_limit::MAX_ARGUMENTS.0 as usize == MAX_ARGS);
    assert!(argument_limit::ARGUMENT_BYTES.0 as usize == MAX_ARG_BYTES);

    assert!(socket_kind::KIND_TCP.0 == SocketKind::Tcp as u32);
    assert!(socket_kind::KIND_UDP.0 == SocketKind::Udp as u32);
    assert!(socket_kind::KIND_PING.0 == SocketKind::Ping as u32);
    assert!(socket_kind::KIND_PING6.0 == SocketKind::Ping6 as u32);
    assert!(socket_kind::KIND_RAW_ICMP.0 == SocketKind::RawIcmp as u32);
    assert!(socket_kind::KIND_RAW_ICMP6.0 == SocketKind::RawIcmp6 as u32);
    assert!(socket_kind::KIND_RAW.0 == SocketKind::Raw as u32);
    assert!(socket_kind::KIND_PACKET.0 == SocketKind::Packet as u32);
    assert!(socket_kind::KIND_SCTP_STREAM.0 == SocketKind::SctpStream as u32);
    assert!(socket_kind::KIND_SCTP_SEQPACKET.0 == SocketKind::SctpSeqpacket as u32);
    assert!(socket_kind::KIND_DCCP.0 == SocketKind::Dccp as u32);
    assert!(socket_kind::KIND_STREAM.0 == SocketKind::Stream as u32);
    assert!(socket_kind::KIND_DGRAM.0 == SocketKind::Dgram as u32);
    assert!(socket_kind::KIND_RDM.0 == SocketKind::Rdm as u32);
    assert!(socket_kind::KIND_SEQPACKET.0 == SocketKind::Seqpacket as u32);
    assert!(socket_kind::KIND_OTHER.0 == SocketKind::Other as u32);
    assert!(socket_kind::SOCKET_KINDS.0 as usize == SocketKind::ALL.len());

    assert!(preset::PRESET_FILELESS_EXEC.0 == Preset::FilelessExec as u32);
    assert!(preset::PRESET_ANONYMOUS_MAP_EXEC.0 == Preset::AnonymousMapExec as u32);
    assert!(preset::PRESET_PROTECT_ENV.0 == Preset::ProtectEnv as u32);
    assert!(preset::PRESET_PROTECT_PROC.0 == Preset::ProtectProc as u32);
    assert!(preset::PRESET_EXEC.0 == Preset::Exec as u32);
    assert!(preset::PRESETS.0 as usize == Preset::ALL.len());

    assert!(transport::TRANSPORT_TCP.0 == Transport::Tcp as u32);
    assert!(transport::TRANSPORT_UDP.0 == Transport::Udp as u32);
    assert!(transport::TRANSPORT_SCTP.0 == Transport::Sctp as u32);
    assert!(transport::TRANSPORT_DCCP.0 == Transport::Dccp as u32);
    assert!(transport::TRANSPORT_ICMP.0 == Transport::Icmp as u32);
    assert!(transport::TRANSPORT_OTHER.0 == Transport::Other as u32);
    assert!(ENTRIES == 1 << image_size::TRIE_STRIDE.0);

    assert!(Slot::RECORD == 1 << table_bit::SLOT_MARK.0 && Slot::JUMP == Slot::RECORD);
    assert!(size_of::<Slot>() == 8);
    assert!(size_of::<Jump>() == image_size::JUMP_BYTES.0 as usize + 8);

    assert!(size_of::<image_domain>() == 8 * image_size::IMAGE_DOMAIN_WORDS.0 as usize);
    assert!(size_of::<container_id>() == event_size::CONTAINER_ID_BYTES.0 as usize);
};

// SAFETY: these consist of integers and arrays of integers without padding between or behind them.
unsafe impl Plain for event_header {}
// SAFETY: as above.
unsafe impl Plain for path_event {}
// SAFETY: as above.
unsafe impl Plain for socket_event {}
// SAFETY: as above.
unsafe impl Plain for capability_event {}
// SAFETY: as above.
unsafe impl Plain for syscall_event {}
// SAFETY: as above.
unsafe impl Plain for dns_event {}
// SAFETY: as above.
unsafe impl Plain for guarded_key {}
// SAFETY: as above.
unsafe impl Plain for image_domain {}
// SAFETY: as above.
unsafe impl Plain for image_kinds {}
// SAFETY: as above.
unsafe impl Plain for label {}
// SAFETY: as above.
unsafe impl Plain for labelled {}
// SAFETY: as above.
unsafe impl Plain for linked_key {}

/// Reads a structure from the beginning of `bytes`; `None` if they are too few.
pub(crate) fn read<T: Plain + Default>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    plain::copy_from_bytes(&mut value, bytes).ok()?;
    Some(value)
}

/// Returns a structure as the bytes that the kernel reads.
pub(crate) fn bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: the types that are `Plain` here have no padding, whose bytes would not be initialised.
    unsafe { plain::as_bytes(value) }
}
