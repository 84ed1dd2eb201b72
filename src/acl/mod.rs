//! Users and what they may do (decision 0016).
//!
//! A [`User`](user::User) is a value: rules make a new one out of an old one, and nothing changes
//! it afterwards. All users together are a [`Users`](users::Users), which cores share and replace
//! as a whole. Knows nothing of connections: who is logged in, and who is thrown out after a
//! change, is the core's affair.

pub mod log;
pub mod password;
pub mod rules;
pub mod selector;

#[cfg(test)]
mod tests;
pub mod user;
pub mod users;
