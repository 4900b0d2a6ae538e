//! streamfleet: a fleet of workers on Redis Streams.
