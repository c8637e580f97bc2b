//! The passages that the embedded search answers from, and the index over them.
//!
//! A passage is a title, a path and a text. The files are compiled in, so that there is nothing to install; they are
//! indexed at the first start, and again when they have changed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use bequest::Context;
use bequest_sqlite::{Database, Error};
use rusqlite::{Connection, OptionalExtension};

use super::Found;

/// The index.
#[derive(Clone, Debug)]
pub(crate) struct Corpus(Database);

/// A text with its title and its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage<'t> {
    pub(crate) title: &'t str,
    pub(crate) path: &'t str,
    pub(crate) text: &'t str,
}

/// What a look into the index gave.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) found: Vec<Found>,
    /// How much time it had when its statement began, if it had to end at all.
    pub(crate) budget: Option<Duration>,
}

/// How many results a query answers at most.
const RESULTS: i64 = 10;

macro_rules! files {
    ($($name:literal),+ $(,)?) => { [$(include_str!(concat!("../../corpus/", $name, ".txt"))),+] };
}

/// Every file of `service/corpus`; a test holds the list against the folder.
const FILES: [&str; 11] = files![
    "cancellation",
    "contexts",
    "databases",
    "deadlines",
    "go",
    "history",
    "http",
    "korean",
    "rust",
    "services",
    "systems",
];

impl Corpus {
    /// Opens the index in `folder`, and fills it if it is not that of the files compiled in.
    pub(crate) async fn open(ctx: &Context, folder: &Path) -> Result<Corpus, Error> {
        let database = Database::open(ctx, folder.join("search.sqlite")).await?;
        database.write(ctx, fill).await?;
        Ok(Corpus(database))
    }

    /// The passages that contain every word of `query`, or a word that begins with it; the best first.
    pub(crate) async fn search(&self, ctx: &Context, query: &str) -> Result<Looked, Error> {
        let Some(terms) = match_expression(query) else {
            return Ok(Looked::default());
        };
        let hop = ctx.clone();
        let sql = "SELECT title, path FROM passages WHERE passages MATCH ?1 ORDER BY bm25(passages, 4.0, 1.0) LIMIT ?2";
        self.0
            .read(ctx, move |connection| {
                let budget = hop.remaining();
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_map((terms, RESULTS), |row| {
                    Ok(Found {
                        title: row.get(0)?,
                        url: row.get(1)?,
                    })
                })?;
                let found = rows.collect::<Result<_, _>>()?;
                Ok(Looked { found, budget })
            })
            .await
    }

    /// Title and text of the passage at `path`.
    pub(crate) async fn passage(
        &self,
        ctx: &Context,
        path: String,
    ) -> Result<Option<(String, String)>, Error> {
        let sql = "SELECT title, text FROM passages WHERE path = ?1";
        let read = move |connection: &Connection| {
            connection
                .query_row(sql, [path], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        };
        self.0.read(ctx, read).await
    }

    pub(crate) fn running(&self) -> usize {
        self.0.statistics().running()
    }

    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.0.close(ctx).await
    }
}

/// The passages of all files.
pub(crate) fn passages() -> impl Iterator<Item = Passage<'static>> {
    FILES
        .iter()
        .flat_map(|file| file.split("\n\n"))
        .filter_map(read_passage)
}

fn read_passage(block: &str) -> Option<Passage<'_>> {
    let (title, rest) = block.trim().strip_prefix("# ")?.split_once('\n')?;
    let (path, text) = rest.split_once('\n')?;
    Some(Passage { title, path, text })
}

fn fill(tx: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS corpus (version INTEGER NOT NULL) STRICT;
         CREATE VIRTUAL TABLE IF NOT EXISTS passages USING fts5(title, text, path UNINDEXED);",
    )?;
    let version = version();
    let known: Option<i64> = tx
        .query_row("SELECT version FROM corpus", [], |row| row.get(0))
        .optional()?;
    if known == Some(version) {
        return Ok(());
    }
    tx.execute_batch("DELETE FROM corpus; DELETE FROM passages;")?;
    tx.execute("INSERT INTO corpus VALUES (?1)", [version])?;
    let mut insert = tx.prepare("INSERT INTO passages (title, text, path) VALUES (?1, ?2, ?3)")?;
    for passage in passages() {
        insert.execute((passage.title, passage.text, passage.path))?;
    }
    Ok(())
}

/// A number that changes with the files.
fn version() -> i64 {
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    i64::from_ne_bytes(hasher.finish().to_ne_bytes())
}

/// The query in FTS5's language: every word as a prefix, all of them asked for. `None` if there is no word.
///
/// Words are quoted, so that nothing a user types is an operator.
fn match_expression(query: &str) -> Option<String> {
    let words: Vec<String> = query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| format!("\"{word}\"*"))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_file_is_listed_and_every_passage_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), FILES.len());
        let titles: usize = FILES
            .iter()
            .map(|file| file.lines().filter(|line| line.starts_with("# ")).count())
            .sum();
        assert_eq!(passages().count(), titles);
        assert!(titles >= 300);
        let paths: HashSet<_> = passages().map(|passage| passage.path).collect();
        assert_eq!(paths.len(), titles);
        assert!(paths.iter().all(|path| path.starts_with("/a/")));
    }

    #[test]
    fn nothing_typed_is_an_operator() {
        assert_eq!(
            match_expression("golang context").unwrap(),
            "\"golang\"* \"context\"*"
        );
        assert_eq!(
            match_expression("\"x\" OR y* NEAR(").unwrap(),
            "\"x\"* \"OR\"* \"y\"* \"NEAR\"*"
        );
        assert_eq!(match_expression("\" ' ;--"), None);
    }

    #[tokio::test]
    async fn finds_what_people_ask_for() {
        let ctx = Context::background();
        let folder = tempdir();
        let corpus = Corpus::open(&ctx, &folder.0).await.unwrap();
        for query in ["golang", "context", "deadline", "취소"] {
            let found = corpus.search(&ctx, query).await.unwrap().found;
            assert!(found.len() >= 3, "{query}: {found:?}");
            let first = corpus.passage(&ctx, found[0].url.clone()).await.unwrap();
            assert_eq!(first.map(|(title, _)| title), Some(found[0].title.clone()));
        }
        assert_eq!(corpus.search(&ctx, "xyzzyplugh").await.unwrap().found, []);
        corpus.close(&ctx).await.unwrap();
        let again = Corpus::open(&ctx, &folder.0).await.unwrap();
        assert_eq!(again.search(&ctx, "golang").await.unwrap().found.len(), 10);
    }

    struct Folder(std::path::PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn tempdir() -> Folder {
        let folder = std::env::temp_dir().join(format!("bequest-corpus-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}
