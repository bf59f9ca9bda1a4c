//! What is true about many applications, and what the registry made of it.

mod app;
mod home;
mod line;
mod stage;
mod verdict;
mod wall;

pub(crate) use home::Place;
pub(crate) use stage::Stage;
pub(crate) use verdict::Row;
