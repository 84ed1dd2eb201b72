//! etcd as a peer: three nodes of it, and puts and gets by its own protocol.
//!
//! Its protocol is gRPC: a few constant bytes of HTTP/2 around a protobuf message of two fields.
//! They are written here, so that etcd's clients are the same kind of loop as everybody's: one
//! thread, many connections, one request on each.

pub mod load;
pub mod nodes;
mod wire;
