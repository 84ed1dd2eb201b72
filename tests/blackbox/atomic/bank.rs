//! Accounts in different shards and transfers between them, by WATCH, MULTI and EXEC or by MULTI
//! and EXEC alone. The sum of all accounts is the same whenever they are read together. A receipt
//! is written with each transfer, so that after a kill it is known of every transfer whether it
//! happened, and every balance must be exact.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Chance, Client, Value};

use super::scene::{
    Actor, Halt, Scene, Step, elements, ensure, expect, keys_in_turn, transaction, with_keys,
    with_pairs, words,
};

const ACCOUNTS: usize = 6;
const TELLERS: usize = 3;
const READERS: usize = 2;
const FIRST_BALANCE: i64 = 1000;

/// How a transfer is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transfers {
    /// In a transaction.
    Atomic,
    /// By a script, which names its keys or finds them while it runs.
    Scripted,
    /// By two requests, which readers must notice: the test of the test.
    OneByOne,
}

/// The scene.
pub struct Bank {
    accounts: Vec<String>,
    receipts: Vec<String>,
    transfers: Transfers,
    books: Mutex<Books>,
    refused: AtomicU64,
}

/// What the tellers know.
struct Books {
    balances: Vec<i64>,
    /// Of each teller, the number of its last transfer that was done.
    done: Vec<i64>,
    /// Of each teller, its transfer that has no answer.
    pending: Vec<Option<Transfer>>,
}

#[derive(Clone, Copy, Debug)]
struct Transfer {
    from: usize,
    to: usize,
    amount: i64,
}

impl Books {
    fn conclude(&mut self, teller: usize, done: bool) {
        let Some(transfer) = self.pending[teller].take() else { return };
        if done {
            self.done[teller] += 1;
            self.balances[transfer.from] -= transfer.amount;
            self.balances[transfer.to] += transfer.amount;
        }
    }
}

impl Bank {
    /// Accounts in all shards.
    pub fn new(shards: usize, transfers: Transfers) -> Bank {
        let books = Books {
            balances: vec![FIRST_BALANCE; ACCOUNTS],
            done: vec![0; TELLERS],
            pending: vec![None; TELLERS],
        };
        let (account, receipt) = match transfers {
            Transfers::Scripted => ("scripted-account", "scripted-receipt"),
            Transfers::Atomic | Transfers::OneByOne => ("account", "receipt"),
        };
        Bank {
            accounts: keys_in_turn(account, ACCOUNTS, shards),
            receipts: keys_in_turn(receipt, TELLERS, shards),
            transfers,
            books: Mutex::new(books),
            refused: AtomicU64::new(0),
        }
    }

    fn transfer(&self, teller: usize, chance: &mut Chance, client: &mut Client) -> Step {
        let from = chance.below(ACCOUNTS as u64) as usize;
        let to = (from + 1 + chance.below(ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
        let transfer = Transfer { from, to, amount: 1 + chance.below(50) as i64 };
        if self.transfers == Transfers::OneByOne {
            let [take, give, _] = self.commands(teller, transfer);
            client.try_call(&take)?;
            client.try_call(&give)?;
            return Ok(true);
        }
        if self.transfers == Transfers::Scripted {
            return self.run_script(teller, transfer, chance, client);
        }
        let keys = [self.accounts[from].clone(), self.accounts[to].clone()];
        let watched = match chance.below(3) {
            0 => None,
            _ => {
                expect(client, &with_keys("WATCH", &keys), &Value::ok())?;
                let balances = integers(client.try_call(&with_keys("MGET", &keys))?, 2)?;
                Some([balances[0], balances[1]])
            }
        };
        self.books.lock().expect("nobody panics here").pending[teller] = Some(transfer);
        let reply = transaction(client, &self.commands(teller, transfer))?;
        let done = match (reply, watched) {
            (Value::NullArray, Some(_)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
            (reply, watched) => {
                let replies = elements(reply, 3)?;
                if let Some([from, to]) = watched {
                    let expected = [from - transfer.amount, to + transfer.amount];
                    ensure(replies[..2] == expected.map(Value::Integer), || {
                        format!("watched {from} and {to}, {transfer:?} made {replies:?}")
                    })?;
                }
                ensure(replies[2] == Value::ok(), || format!("the receipt: {replies:?}"))?;
                true
            }
        };
        self.books.lock().expect("nobody panics here").conclude(teller, done);
        Ok(done)
    }

    fn run_script(
        &self,
        teller: usize,
        transfer: Transfer,
        chance: &mut Chance,
        client: &mut Client,
    ) -> Step {
        const SCRIPT: &str = "local names = #KEYS > 0 and KEYS or {ARGV[3], ARGV[4], ARGV[5]} \
            redis.call('decrby', names[1], ARGV[1]) \
            if redis.call('get', names[1]) == false then return 'no account' end \
            redis.call('incrby', names[2], ARGV[1]) \
            return redis.call('set', names[3], ARGV[2])";
        let [take, give, receipt] = self.commands(teller, transfer);
        let keys = [&take[1], &give[1], &receipt[1]];
        let mut request = vec!["EVAL".to_string(), SCRIPT.to_string()];
        let names = keys.map(Clone::clone);
        let values = [take[2].clone(), receipt[2].clone()];
        match chance.below(2) {
            0 => request.extend(["3".to_string()].into_iter().chain(names).chain(values)),
            _ => request.extend(["0".to_string()].into_iter().chain(values).chain(names)),
        }
        self.books.lock().expect("nobody panics here").pending[teller] = Some(transfer);
        expect(client, &request, &Value::ok())?;
        self.books.lock().expect("nobody panics here").conclude(teller, true);
        Ok(true)
    }

    fn commands(&self, teller: usize, transfer: Transfer) -> [Vec<String>; 3] {
        let Transfer { from, to, amount } = transfer;
        let number = self.books.lock().expect("nobody panics here").done[teller] + 1;
        [
            words(&["DECRBY", &self.accounts[from], &amount.to_string()]),
            words(&["INCRBY", &self.accounts[to], &amount.to_string()]),
            words(&["SET", &self.receipts[teller], &number.to_string()]),
        ]
    }

    fn sum(&self, chance: &mut Chance, client: &mut Client) -> Result<Vec<i64>, Halt> {
        let reply = match chance.below(2) {
            0 => client.try_call(&with_keys("MGET", &self.accounts))?,
            _ => {
                let gets: Vec<_> = self.accounts.iter().map(|key| words(&["GET", key])).collect();
                transaction(client, &gets)?
            }
        };
        let balances = integers(reply, ACCOUNTS)?;
        let sum: i64 = balances.iter().sum();
        ensure(sum == FIRST_BALANCE * ACCOUNTS as i64, || {
            format!("the sum of {balances:?} is {sum}")
        })?;
        Ok(balances)
    }
}

fn integers(reply: Value, count: usize) -> Result<Vec<i64>, Halt> {
    let parse = |value: &Value| match value {
        Value::Bulk(digits) => String::from_utf8_lossy(digits).parse().ok(),
        _ => None,
    };
    let values = elements(reply, count)?;
    let parsed: Option<Vec<i64>> = values.iter().map(parse).collect();
    parsed.ok_or_else(|| Halt::Wrong(format!("not integers: {values:?}")))
}

impl Scene for Bank {
    fn prepare(&self, client: &mut Client) -> Result<(), Halt> {
        let balance = FIRST_BALANCE.to_string();
        for account in &self.accounts {
            expect(client, &words(&["SET", account, &balance]), &Value::ok())?;
        }
        for receipt in &self.receipts {
            expect(client, &with_pairs("MSET", std::slice::from_ref(receipt), "0"), &Value::ok())?;
        }
        Ok(())
    }

    fn actors(&self, chance: &mut Chance) -> Vec<Actor<'_>> {
        let mut actors = Vec::new();
        for teller in 0..TELLERS {
            let mut chance = Chance::seeded(chance.next());
            actors.push(Actor::new("teller", move |client| {
                self.transfer(teller, &mut chance, client)
            }));
        }
        for _ in 0..READERS {
            let mut chance = Chance::seeded(chance.next());
            let mut last = Vec::new();
            actors.push(Actor::new("bank reader", move |client| {
                let balances = self.sum(&mut chance, client)?;
                let news = balances != last;
                last = balances;
                Ok(news)
            }));
        }
        actors
    }

    fn settle(&self, client: &mut Client) -> Result<(), Halt> {
        let receipts = integers(client.try_call(&with_keys("MGET", &self.receipts))?, TELLERS)?;
        let found = self.sum(&mut Chance::seeded(1), client)?;
        let mut books = self.books.lock().expect("nobody panics here");
        for (teller, receipt) in receipts.into_iter().enumerate() {
            let (done, pending) = (books.done[teller], books.pending[teller]);
            ensure(receipt == done || (pending.is_some() && receipt == done + 1), || {
                format!("teller {teller} did {done}, then {pending:?}; its receipt is {receipt}")
            })?;
            books.conclude(teller, receipt > done);
        }
        ensure(found == books.balances, || format!("{found:?}, not {:?}", books.balances))
    }

    fn keys(&self) -> Vec<String> {
        [&self.accounts[..], &self.receipts[..]].concat()
    }

    fn shown(&self) -> String {
        let done: i64 = self.books.lock().expect("nobody panics here").done.iter().sum();
        format!("bank: {done} transfers, {} refused", self.refused.load(Ordering::Relaxed))
    }
}
