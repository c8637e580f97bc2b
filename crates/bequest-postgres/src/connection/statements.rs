//! The prepared statements of one connection, by their text.

use std::collections::HashMap;
use std::fmt;

use tokio_postgres::Statement;

/// A bounded map; over the bound, the statement that was not used for the longest time goes.
pub(crate) struct Statements {
    most: usize,
    /// Counts the uses.
    now: u64,
    kept: HashMap<Box<str>, Kept>,
}

struct Kept {
    statement: Statement,
    last_used: u64,
}

impl Statements {
    pub(crate) fn new(most: usize) -> Statements {
        Statements {
            most,
            now: 0,
            kept: HashMap::new(),
        }
    }

    pub(crate) fn get(&mut self, sql: &str) -> Option<Statement> {
        self.now += 1;
        let kept = self.kept.get_mut(sql)?;
        kept.last_used = self.now;
        Some(kept.statement.clone())
    }

    pub(crate) fn keep(&mut self, sql: &str, statement: Statement) {
        if self.kept.len() >= self.most && !self.kept.contains_key(sql) {
            self.forget_oldest();
        }
        self.now += 1;
        let last_used = self.now;
        self.kept.insert(sql.into(), Kept { statement, last_used });
    }

    /// Forgets a statement that the server does not want to run any more.
    pub(crate) fn forget(&mut self, sql: &str) {
        self.kept.remove(sql);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.last_used);
        if let Some(sql) = oldest.map(|(sql, _)| sql.clone()) {
            self.kept.remove(&sql);
        }
    }
}

impl fmt::Debug for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements")
            .field("kept", &self.kept.len())
            .field("most", &self.most)
            .finish()
    }
}
