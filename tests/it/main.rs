//! The whole program as a black box, and its parts against real bytes. One binary, so that it links once.

mod support;
