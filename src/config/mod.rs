//! The configuration: from files and environment to valid settings.

pub mod settings;
