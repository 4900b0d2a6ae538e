//! State is the folded history, whatever becomes of the snapshots.

use super::*;

async fn read(commands: &Commands) -> (Account, u64) {
    let read = commands
        .execute(command(), async |cx| cx.aggregate::<Account>("7").await)
        .await
        .unwrap()
        .unwrap();
    (read.state, read.version)
}

fn account(balance: i64, bookings: u64) -> Account {
    Account { balance, bookings }
}

/// An account with `1 + 2 + … + bookings`, by as many commands.
async fn booked(fleet: &Fleet, bookings: i64) -> Commands {
    let commands = commands(fleet).await;
    for amount in 1..=bookings {
        let done = commands.execute(command(), async |cx| book(cx, amount).await);
        done.await.unwrap().unwrap();
    }
    commands
}

#[tokio::test]
async fn a_snapshot_is_written_with_every_fourth_event_and_saves_reading() {
    let fleet = Fleet::new();
    let commands = booked(&fleet, 3).await;
    assert_eq!(fleet.cli::<u64>("EXISTS snapshot:Account:7"), 0);
    for amount in 4..=6 {
        let done = commands.execute(command(), async |cx| book(cx, amount).await);
        done.await.unwrap().unwrap();
    }
    let version: u64 = fleet.cli("HGET snapshot:Account:7 version");
    assert_eq!(version, 4);
    assert_eq!(read(&commands).await, (account(21, 6), 6));
    // What is in the snapshot is not read from the history again: a marked one shows through.
    fleet.cli::<u64>(r#"HSET snapshot:Account:7 state {"balance":1010,"bookings":4}"#);
    assert_eq!(read(&commands).await, (account(1_021, 6), 6));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_used_is_passed_over() {
    let fleet = Fleet::new();
    let commands = booked(&fleet, 5).await;
    for spoilt in [
        "HSET snapshot:Account:7 shape 1 state {\"balance\":99}",
        "HSET snapshot:Account:7 shape 2 state nonsense",
        "HSET snapshot:Account:7 version 900 shape 2 state {\"balance\":99}",
        "HSET snapshot:Account:7 version x shape 2 state {\"balance\":99}",
        "HDEL snapshot:Account:7 state",
    ] {
        fleet.cli::<u64>(spoilt);
        assert_eq!(read(&commands).await, (account(15, 5), 5), "{spoilt}");
    }
    // The next due snapshot replaces it.
    for amount in 6..=8 {
        let done = commands.execute(command(), async |cx| book(cx, amount).await);
        done.await.unwrap().unwrap();
    }
    let state: String = fleet.cli("HGET snapshot:Account:7 state");
    assert_eq!(state, r#"{"balance":36,"bookings":8}"#);
}

#[tokio::test]
async fn several_appends_of_one_command_follow_each_other() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    let done = commands.execute(command(), async |cx| {
        let mut read = cx.aggregate::<Account>("7").await?;
        for amount in 1..=9 {
            cx.append_to("7", &mut read, &[Booked::Booked { amount }])?;
        }
        Ok(read.version)
    });
    assert_eq!(done.await.unwrap(), Some(9));
    assert_eq!(read(&commands).await, (account(45, 9), 9));
    let version: u64 = fleet.cli("HGET snapshot:Account:7 version");
    assert_eq!(version, 8);
}

/// What is appended is counted with it; what stands against the count does not stand against the events.
#[tokio::test]
async fn what_is_appended_is_counted() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    let open = async |id: &'static str, bookings: i64| {
        let done = commands.execute(command(), async move |cx| {
            let mut read = cx.aggregate::<Account>(id).await?;
            for amount in 1..=bookings {
                cx.append_to(id, &mut read, &[Booked::Booked { amount }])?;
            }
            Ok(())
        });
        done.await.unwrap().unwrap();
    };
    open("7", 2).await;
    open("8", 3).await;
    open("7", 1).await;
    let counted = |what: &str| fleet.cli::<Option<u64>>(&format!("HGET entities Account:{what}"));
    assert_eq!((counted("entities"), counted("events")), (Some(2), Some(6)));
    let bytes = counted("bytes").unwrap();
    assert!(bytes >= 6 * "Booked{\"amount\":1}".len() as u64, "{bytes}");
    fleet.cli::<u64>("HSET entities Account:events many");
    open("9", 1).await;
    assert_eq!(counted("entities"), Some(3));
    fleet.cli::<u64>("DEL entities");
    fleet.cli::<()>("SET entities another");
    open("9", 1).await;
    assert_eq!(fleet.cli::<u64>("XLEN es:Account:9"), 2);
    fleet.ask(&["status"]).ok();
}
