//! Who may do what: the ownership matrix, tokens that are no good, tokens of our own, and servers
//! that do not start open.

mod matrix;
mod oauth2;
mod open;
mod tokens;
