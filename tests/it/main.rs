//! One test binary: it links once and shares one support module.

mod restart;
mod support;
