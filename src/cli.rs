//! The commands.
//!
//! Owns: what each command takes and prints, one module for each. May use: everything. Never: holds logic
//! that another command needs too.

pub mod demo;
