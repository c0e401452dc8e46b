//! [`Tenure`]: what the tables say of a server that has the database, or had it; [`Ended`]: why it has it no longer.
//!
//! Invariant: a database that has gone back is not taken for one that another server has taken over.

use std::fmt;

use tokio_postgres::Client;

/// What a look at the tables says of a server that has, or had, the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenure {
    /// It may write; the highest number of its batches that is there, 0 if none is.
    Ours(i64),
    /// Another server has taken over.
    Fenced,
    /// The database is as it was before that server had started.
    NotYet,
}

impl Tenure {
    pub(super) async fn look(
        client: &Client,
        incarnation: i64,
    ) -> Result<Self, tokio_postgres::Error> {
        let sql = "SELECT EXISTS (SELECT 1 FROM fence WHERE incarnation = $1),
             (SELECT coalesce(max(n), 0) FROM batch WHERE incarnation = $1), (SELECT max(epoch) FROM cluster)";
        let row = client.query_one(sql, &[&incarnation]).await?;
        let (is_ours, epoch): (bool, Option<i64>) = (row.get(0), row.get(2));
        Ok(match epoch {
            _ if is_ours => Self::Ours(row.get(1)),
            // Numbers of servers only grow, in a database that does not go back.
            Some(epoch) if epoch >= incarnation => Self::Fenced,
            _ => Self::NotYet,
        })
    }

    /// How many batches are gone, if any are, of a server that knows that so many were kept.
    pub(super) fn lost(self, kept: i64) -> Option<u64> {
        let lost = match self {
            Self::Ours(last) => kept - last,
            Self::Fenced => 0,
            Self::NotYet => kept.max(1),
        };
        u64::try_from(lost).ok().filter(|lost| *lost > 0)
    }

    /// Why a server that knows that so many batches were kept can go on no longer, if so.
    pub(super) fn ended(self, kept: i64) -> Option<Ended> {
        let is_fenced = (self == Self::Fenced).then_some(Ended::Fenced);
        self.lost(kept).map(Ended::Lost).or(is_fenced)
    }
}

/// Why this mailbox can keep nothing any more: only one that is opened anew can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Another server has taken over.
    Fenced,
    /// The database has gone back behind what it had confirmed: so many batches are gone.
    Lost(u64),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced => f.write_str(
                "another server has taken the mailbox over, as this one was not heard of for some seconds; nothing that \
                 it acknowledged is lost",
            ),
            Self::Lost(batches) => write!(
                f,
                "the database has lost {batches} of the batches that it had confirmed, as a failover to a standby that is \
                 not synchronous does, or a restored backup: what was acknowledged with them is lost"
            ),
        }
    }
}
