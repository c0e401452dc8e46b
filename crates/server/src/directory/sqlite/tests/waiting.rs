//! Locks, and threads that hang.

use super::super::leave_reading_to_the_loader;
use super::*;

/// Housekeeping, which is not to hang with a disk.
#[test]
fn a_thread_that_must_not_hang_leaves_reading_to_the_loader() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = jam.open();
        let asking = || {
            leave_reading_to_the_loader();
            directory.friendship(&id("1"), &id("2"))
        };
        let answer = std::thread::scope(|scope| scope.spawn(asking).join().unwrap());
        assert_eq!(answer, Lookup::Unknown, "{mode}");
    }
}

#[tokio::test]
async fn a_writer_is_never_in_the_way() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = jam.open();
        let mut other = OtherProcess::start(&jam);
        assert!(friends(&directory, "1", "2").await);
        other.run("BEGIN IMMEDIATE");
        other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
        for _ in 0..20 {
            std::thread::sleep(AGE);
            // What is not committed is not seen, and memory goes on answering without the thread.
            let known = directory.friendship(&id("1"), &id("2"));
            assert!(
                matches!(known, Lookup::Known(Friendship::Friends(_), _)),
                "{mode}"
            );
            assert!(!friends(&directory, "1", "3").await, "{mode}");
        }
        // Nor is the directory in the writer's way: no lock of ours delays this commit.
        let began = Instant::now();
        other.run("COMMIT");
        assert!(began.elapsed() < Duration::from_secs(1), "{mode}");
        std::thread::sleep(AGE);
        assert!(!friends(&directory, "1", "2").await, "{mode}");
    }
}

#[tokio::test]
async fn an_exclusive_lock_only_delays() {
    let jam = Jam::new("delete");
    let directory = Arc::new(jam.open());
    assert!(friends(&directory, "1", "2").await);
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    other.run("UPDATE user_friends SET blocked = 1 WHERE user_id = 2");
    tokio::time::sleep(AGE * 2).await;

    let began = Instant::now();
    let looked_up = directory.friendship(&id("1"), &id("2"));
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "a look-up never waits"
    );
    assert_eq!(
        looked_up,
        Lookup::Unknown,
        "what may have changed is not told"
    );

    let asking = Arc::clone(&directory);
    let answer = tokio::spawn(async move { friends(&asking, "1", "2").await });
    // This test has one worker; it is free for others all the while.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!answer.is_finished());
    other.run("COMMIT");
    assert!(!answer.await.unwrap(), "then the right answer comes");
}

#[tokio::test]
async fn nobody_waits_for_a_lock_longer_than_his_own_five_seconds() {
    let jam = Jam::new("delete");
    let directory = Arc::new(jam.open());
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    let mut asking = tokio::task::JoinSet::new();
    // They come while others wait, who are not to cost them their time.
    for _ in 0..8 {
        for receiver in ["2", "3"] {
            let directory = Arc::clone(&directory);
            let (sender, receiver) = (id("1"), id(receiver));
            asking.spawn(async move {
                let began = Instant::now();
                let question = Question::Friendship { sender, receiver };
                assert!(directory.answer(question).await.is_err());
                began.elapsed()
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    while let Some(waited) = asking.join_next().await {
        let waited = waited.unwrap();
        assert!(waited >= Duration::from_millis(4900), "{waited:?}");
        assert!(waited < Duration::from_millis(5900), "{waited:?}");
    }
}

#[tokio::test]
async fn a_thread_that_hangs_does_not_answer() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = Arc::new(jam.open());
        assert!(friends(&directory, "1", "2").await);
        assert!(directory.look().await.is_ok());
        let hang = hang(&*directory).await;

        // Whoever asks before it is known: told in a bounded time.
        let began = Instant::now();
        let question = || Question::Account(id("1"));
        let (loaded, looked) = tokio::join!(directory.answer(question()), directory.look());
        assert!(loaded.is_err() && looked.is_err());
        assert!(began.elapsed() < SILENCE * 3);

        // From then on memory is not believed, and whoever asks is told at once.
        assert_eq!(directory.friendship(&id("1"), &id("2")), Lookup::Unknown);
        let began = Instant::now();
        assert!(directory.answer(question()).await.is_err());
        assert!(directory.accounts(&[id("1")]).await.is_err());
        assert!(began.elapsed() < SILENCE / 2);

        drop(hang);
        assert!(directory.look().await.is_ok());
        assert!(friends(&directory, "1", "2").await, "it answers again");
    }
}

/// A connections' thread waits for the disk in a look. The others do not wait with it, and learn that the file does not
/// answer.
#[tokio::test]
async fn a_look_that_hangs_holds_its_own_thread_alone() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = Arc::new(jam.open());
        assert!(friends(&directory, "1", "2").await);
        let (hangs, hung) = std::sync::mpsc::sync_channel(1);
        let (end, until) = std::sync::mpsc::sync_channel::<()>(1);
        let other = Arc::clone(&directory);
        let hanging = std::thread::spawn(move || {
            other.look_while(move || {
                hangs.send(()).unwrap();
                until.recv().unwrap_err();
            });
        });
        hung.recv().unwrap();
        std::thread::sleep(AGE);
        let began = Instant::now();
        let _ = directory.friendship(&id("1"), &id("2"));
        assert!(began.elapsed() < SILENCE / 2, "{mode}: it waits for nobody");
        assert!(directory.look().await.is_err());
        assert!(began.elapsed() < SILENCE * 3, "{mode}");
        assert_eq!(directory.friendship(&id("1"), &id("2")), Lookup::Unknown);
        drop(end);
        hanging.join().unwrap();
        assert!(directory.look().await.is_ok());
        assert!(friends(&directory, "1", "2").await, "it answers again");
    }
}

/// The same in a read: the loader answers whoever else asks.
#[tokio::test]
async fn a_read_that_hangs_holds_its_own_thread_alone() {
    for mode in ["delete", "wal"] {
        let jam = Jam::new(mode);
        let directory = Arc::new(jam.open());
        let (hangs, hung) = std::sync::mpsc::sync_channel(1);
        let (end, until) = std::sync::mpsc::sync_channel::<()>(1);
        let other = Arc::clone(&directory);
        let hanging = std::thread::spawn(move || {
            other.hang_reading_while(|| {
                hangs.send(()).unwrap();
                until.recv().unwrap_err();
            });
        });
        hung.recv().unwrap();
        let began = Instant::now();
        assert!(friends(&directory, "1", "2").await, "{mode}");
        assert!(directory.look().await.is_ok(), "{mode}");
        assert!(began.elapsed() < SILENCE / 2, "{mode}");
        drop(end);
        hanging.join().unwrap();
        assert!(friends(&directory, "2", "1").await, "{mode}");
    }
}

#[tokio::test]
async fn opening_waits_for_a_lock() {
    let jam = Jam::new("delete");
    let mut other = OtherProcess::start(&jam);
    other.run("BEGIN EXCLUSIVE");
    let path = jam.path();
    let opening = tokio::task::spawn_blocking(move || SqliteDirectory::open(&path));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    other.run("COMMIT");
    assert!(friends(&opening.await.unwrap().unwrap(), "1", "2").await);
}
