//! Both sides without IO: frames, scenes of one mechanism each, and a simulation of a whole fleet.

mod faults;
mod frames;
mod scenes;
mod world;
