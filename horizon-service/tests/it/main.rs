//! These tests need no hub. They are one program, because linking takes longer than most of them.

#![allow(clippy::unwrap_used)]

mod console;
mod spool;
