//! Sentences for every mistake.
