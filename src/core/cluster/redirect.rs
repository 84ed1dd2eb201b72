//! Clients that are sent to the node that leads instead of having their requests passed on: `-TRY
//! host:port` as kvnode and RedRaft do it, `-MOVED slot host:port` as Redis Cluster does.

use crate::commands::{Command, Run};
use crate::core::Core;
use crate::core::client::answers::Target;
use crate::core::client::connection::Kind;
use crate::core::client::session::Queued;
use crate::refusal::Refusal;
use crate::settings::values::Routing;
use ringraft_shards::arguments::{Arguments, OwnedArguments};
use ringraft_shards::ids::NodeId;
use ringraft_shards::slot::redis_slot;
use ringraft_shards::transaction::NO_LEADER;

impl Core {
    /// Is a client sent elsewhere with this request? Then it is told so. Under `moved` what names
    /// no key is passed on: it is answered by every node.
    pub(super) fn is_redirected(
        &mut self,
        index: u32,
        command: &'static Command,
        arguments: &OwnedArguments,
    ) -> bool {
        let route = self.shared.cluster.route();
        match self.settings.routing {
            Routing::Forward => false,
            Routing::Try => {
                let address = route.and_then(|leader| self.shared.cluster.address(leader));
                let text = address.map_or(NO_LEADER.to_string(), |at| format!("TRY {at}"));
                self.refuse_with(index, text, arguments.borrow());
                true
            }
            Routing::Moved => {
                let slot = match command.name {
                    "exec" => self.slot_of_queued(index),
                    _ => slot_of(command, arguments.borrow()),
                };
                let Some(slot) = slot else { return false };
                if command.name == "exec" {
                    self.answers.connections.at_mut(index).session.transaction = None;
                    self.forget_watched(index);
                    self.forget_relayed_watch(index);
                }
                self.send_to_leader(index, slot, route, arguments.borrow());
                true
            }
        }
    }

    /// Under `moved` a command is not queued that would not run here: then EXEC is refused, as in
    /// Redis Cluster.
    pub(super) fn is_not_queued(
        &mut self,
        index: u32,
        command: &'static Command,
        arguments: &OwnedArguments,
    ) -> bool {
        let is_client = self.answers.connections.at(index).kind != Kind::Relayed;
        if self.settings.routing != Routing::Moved || !is_client {
            return false;
        }
        let session = &self.answers.connections.at(index).session;
        let may_read = session.reads_replicas && matches!(command.run, Run::Read(_));
        let Some(slot) = slot_of(command, arguments.borrow()).filter(|_| !may_read) else {
            return false;
        };
        let session = &mut self.answers.connections.at_mut(index).session;
        if let Some(transaction) = &mut session.transaction {
            transaction.refused = true;
        }
        let route = self.shared.cluster.route();
        self.send_to_leader(index, slot, route, arguments.borrow());
        true
    }

    /// The slot for whose sake a transaction runs elsewhere; none if it reads alone and the client
    /// reads from replicas.
    fn slot_of_queued(&self, index: u32) -> Option<u16> {
        let session = &self.answers.connections.at(index).session;
        let queued = &session.transaction.as_deref()?.queued;
        let is_read = |queued: &Queued| !queued.command.run.writes();
        if session.reads_replicas && queued.iter().all(is_read) {
            return None;
        }
        queued.iter().find_map(|queued| slot_of(queued.command, queued.arguments.borrow()))
    }

    fn send_to_leader(
        &mut self,
        index: u32,
        slot: u16,
        leader: Option<NodeId>,
        arguments: Arguments<'_>,
    ) {
        let address = leader.and_then(|leader| self.shared.cluster.address(leader));
        let text = match address {
            Some(address) => format!("MOVED {slot} {address}"),
            None => "CLUSTERDOWN Hash slot not served".to_string(),
        };
        self.refuse_with(index, text, arguments);
    }

    fn refuse_with(&mut self, index: u32, text: String, arguments: Arguments<'_>) {
        let sequence = self.expect_reply(index);
        let target = Target::Connection { index, sequence };
        self.refuse(index, target, &Refusal::Text(text.into()), arguments);
    }
}

/// The slot of a request's first key, as Redis Cluster counts slots. Keys of several slots are as
/// good as those of one: all are at the same node.
fn slot_of(command: &Command, arguments: Arguments<'_>) -> Option<u16> {
    let first = command.keys.positions(arguments).find_map(|at| arguments.get(at));
    first.map(redis_slot)
}
