//! What operators asked a server to remove, in the table `purge`, done without one; and what is of nothing that is there.

/// What an operator asks to be removed: a row of `purge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PurgeRequest {
    pub(super) part: i16,
    pub(super) user: String,
    pub(super) sender: String,
    pub(super) up_to: i64,
}

/// Plans for tables of any size, on a connection that otherwise reads by key.
const PLANS: &str = "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on";

/// Removes the messages that requests name. The first statement counts.
pub(super) const REMOVE_MESSAGES: &str = r#"DELETE FROM message m USING purge p
    WHERE m.part = p.part AND m."user" = p."user" AND m.seq <= p.up_to
    AND (p.sender = '/' OR (p.sender IN ('', m.sender) AND m.flags & 4 <> 0))"#;

/// What else goes with requests for everything, and the requests.
pub(super) const REMOVE_THE_REST: &str = r#"
DELETE FROM received t USING session s, purge p WHERE p.sender = '/' AND s.part = p.part AND s."user" = p."user"
    AND s.id <= p.up_to AND t.part = s.part AND t.session = s.id;
DELETE FROM in_flight t USING session s, purge p WHERE p.sender = '/' AND s.part = p.part AND s."user" = p."user"
    AND s.id <= p.up_to AND t.part = s.part AND t.session = s.id;
DELETE FROM claim t USING session s, purge p WHERE p.sender = '/' AND s.part = p.part AND s."user" = p."user"
    AND s.id <= p.up_to AND t.part = s.part AND t.session = s.id;
DELETE FROM subscription t USING session s, purge p WHERE p.sender = '/' AND s.part = p.part AND s."user" = p."user"
    AND s.id <= p.up_to AND t.part = s.part AND t.session = s.id;
DELETE FROM session t USING purge p
    WHERE p.sender = '/' AND t.part = p.part AND t."user" = p."user" AND t.id <= p.up_to;
DELETE FROM will t USING purge p
    WHERE p.sender = '/' AND t.part = p.part AND t."user" = p."user" AND t.id <= p.up_to;
DELETE FROM retained t USING purge p
    WHERE p.sender = '/' AND t.part = p.part AND t."user" = p."user" AND t.message <= p.up_to;
DELETE FROM push t USING purge p
    WHERE p.sender = '/' AND t.part = p.part AND t."user" = p."user" AND t.message <= p.up_to;
DELETE FROM owner t USING purge p WHERE p.sender = '/' AND t.part = p.part AND t."user" = p."user"
    AND NOT EXISTS (SELECT FROM message o WHERE o.part = t.part AND o."user" = t."user")
    AND NOT EXISTS (SELECT FROM session o WHERE o.part = t.part AND o."user" = t."user")
    AND NOT EXISTS (SELECT FROM will o WHERE o.part = t.part AND o."user" = t."user");
DELETE FROM purge"#;

/// What is of a session or of a message that is not there.
const REMOVE_ORPHANS: &str = "
DELETE FROM received t WHERE NOT EXISTS (SELECT FROM session s WHERE s.part = t.part AND s.id = t.session);
DELETE FROM in_flight t WHERE NOT EXISTS (SELECT FROM session s WHERE s.part = t.part AND s.id = t.session);
DELETE FROM claim t WHERE NOT EXISTS (SELECT FROM session s WHERE s.part = t.part AND s.id = t.session)
    OR NOT EXISTS (SELECT FROM retained r WHERE r.part = t.part AND r.message = t.message);
DELETE FROM subscription t WHERE NOT EXISTS (SELECT FROM session s WHERE s.part = t.part AND s.id = t.session)";

/// What a start does before it reads. If the process before has sent what it could not write down, all that is there may have
/// been sent: no number of it is above this process's.
pub(super) fn at_start(was_unwritten: bool, last: i64) -> String {
    let all = format!("{PLANS}; {REMOVE_MESSAGES}; {REMOVE_THE_REST}; {REMOVE_ORPHANS}");
    if was_unwritten {
        format!("{all}; UPDATE session SET maybe_sent = {last}")
    } else {
        all
    }
}
