//! What a user may not do stops a script before it has written anything, and no script asks for a
//! right that it does not need.

use streamfleet::store::{Committed, Settled, retire_group};

use super::commit::Request;
use super::*;

impl Bench {
    /// Takes a right from the user of all connections, or gives it back.
    pub(super) fn rights(&self, rule: &str) {
        self.run(&format!("ACL SETUSER default {rule}"));
    }

    async fn try_commit(&mut self, id: u64, request: &Request) -> Result<Committed, String> {
        let delivery = (fence(id, 1), false);
        let sent = commit_one(&self.me, &mut self.redis, delivery, request.encode());
        match sent.await {
            Ok(Committed::Refused(error)) => Err(error),
            Ok(committed) => Ok(committed),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[tokio::test]
async fn a_commit_needs_the_rights_to_what_it_writes_and_no_others() {
    let mut b = Bench::pending(2).await;
    b.rights("-xadd -xdel -hdel");
    let plain = Request::default().effect("SET x:k v");
    let settled = b.try_commit(1, &plain).await.unwrap();
    assert_eq!(settled, Committed::Settled(Settled::Done));
    let before = b.snapshot();
    let follows = Request::default().effect("SET x:k w").follow_up("{}", 1);
    let refused = b.try_commit(2, &follows).await.unwrap_err();
    assert!(refused.contains("XADD on inbox"), "{refused}");
    assert_eq!(b.snapshot(), before);
    b.rights("-set");
    let refused = b.try_commit(2, &plain).await.unwrap_err();
    assert!(refused.contains("SET on x:k"), "{refused}");
    assert_eq!(b.snapshot(), before);
    b.rights("+@all");
    let settled = b.try_commit(2, &follows).await.unwrap();
    assert_eq!(settled, Committed::Settled(Settled::Done));
}

#[tokio::test]
async fn a_group_that_may_not_be_destroyed_is_not_retired_by_half() {
    let mut b = Bench::pending(1).await;
    b.run(&format!("HSET fleet group:{STREAM}:{GROUP} x"));
    b.run(&format!("HSET {ATTEMPTS} 1-0 [1]"));
    b.rights("-xgroup|destroy");
    let before = b.snapshot();
    let field = format!("group:{STREAM}:{GROUP}");
    let refused = retire_group(&mut b.redis, "fleet", &b.me, &field, true).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("XGROUP|DESTROY"), "{refused}");
    assert_eq!(b.snapshot(), before);
    b.rights("+@all");
    retire_group(&mut b.redis, "fleet", &b.me, &field, true)
        .await
        .unwrap();
    assert!(!b.cli::<bool>(&format!("EXISTS {ATTEMPTS}")));
}
