//! `campaign [ROUNDS] [SEED]`: the kill campaign for as long as you like; see `jam_tests_campaign::rounds`.

use std::io;
use std::process::ExitCode;

use jam_tests_campaign::rounds::{self, Options};
use jam_tests_campaign::server::nanos;

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().ok());
    let (rounds, seed) = (arguments.next(), arguments.next());
    let rounds = rounds
        .unwrap_or(Some(1000))
        .and_then(|rounds| u32::try_from(rounds).ok());
    let (Some(rounds), Some(seed)) = (rounds, seed.unwrap_or_else(|| Some(nanos()))) else {
        let _ = io::Write::write_all(&mut io::stderr(), b"usage: campaign [ROUNDS] [SEED]\n");
        return ExitCode::from(2);
    };
    let options = Options {
        rounds,
        seed,
        settle_every: 10,
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
