//! Stock Envoys of three releases with a hand-written configuration, changed under traffic, by every way of asking.

mod fixture;
mod moves;
mod on_demand;
mod smoke;
