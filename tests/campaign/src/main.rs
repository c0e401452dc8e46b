//! `campaign [ROUNDS] [SEED] [STORE]`: the kill campaign for as long as you like; see `jam_tests_campaign::rounds`.

use std::io;
use std::process::ExitCode;

use jam_tests_campaign::rounds::{self, Options};
use jam_tests_campaign::server::{Store, nanos};

/// What the arguments say; missing ones have a meaning too.
fn options() -> Option<Options> {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(Some(1000), |it| it.parse().ok())?;
    let seed = arguments
        .next()
        .map_or_else(|| Some(nanos()), |it| it.parse().ok())?;
    let store = arguments
        .next()
        .map_or(Some(Store::Sqlite), |it| Store::parse(&it))?;
    let is_all = arguments.next().is_none();
    is_all.then_some(Options {
        rounds,
        seed,
        store,
        settle_every: 10,
    })
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        let usage = b"usage: campaign [ROUNDS] [SEED] [sqlite|postgres]\n";
        let _ = io::Write::write_all(&mut io::stderr(), usage);
        return ExitCode::from(2);
    };
    let mut out = io::stdout();
    let outcome = match rounds::run(options, &mut out) {
        Ok(counts) => writeln(
            &mut out,
            &format!("nothing was broken: {counts}"),
            ExitCode::SUCCESS,
        ),
        Err(broken) => writeln(&mut out, &broken, ExitCode::FAILURE),
    };
    outcome.unwrap_or(ExitCode::FAILURE)
}

fn writeln(out: &mut impl io::Write, text: &str, code: ExitCode) -> io::Result<ExitCode> {
    writeln!(out, "{text}").map(|()| code)
}
