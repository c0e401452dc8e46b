//! `users/{id}/diagnosis`: why somebody gets no messages.
//!
//! What an operator would look up in five places, and [`findings`]: what of it stands in the way, the first cause first.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jam_core::directory::{Fact, Friendship, Question};
use jam_core::ids::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::devices::Device;
use super::extract::{Asked, At, UserPath, user};
use super::mailboxes::Mailbox;
use super::{Api, Shared, refused, unavailable};
use crate::admin::problem::Problem;
use crate::directory::AdministrationError;

/// A device that has not acknowledged a message for so long does not take it.
const SLOW: Duration = Duration::from_secs(60);

/// What there is to know about a user who gets no messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Diagnosis {
    /// The user id.
    user: String,
    /// Whether there is such an account.
    account: bool,
    /// Whether it has a token to log in with.
    token: bool,
    /// Whether pushes to it can be addressed.
    push: bool,
    /// What waits.
    mailbox: Mailbox,
    /// The user's devices: connected or not, what is in flight to each, whether it has subscribed to the inbox.
    devices: Vec<Device>,
    /// The sender that was asked about.
    sender: Option<Sender>,
    /// What stands in the way, the first cause first. Empty: nothing that the server knows of.
    findings: Vec<Finding>,
}

/// Somebody whose messages do not arrive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sender {
    /// The user id.
    user: String,
    /// Whether there is such an account.
    account: bool,
    /// Whether it has a token to log in with.
    token: bool,
    /// Whether the two are friends, blocks aside.
    friends: bool,
    /// Whether the user has blocked the sender.
    blocked: bool,
    /// Whether the sender has blocked the user, which keeps the sender from writing too.
    has_blocked: bool,
    /// Whether the server lets the sender write to the user.
    may_write: bool,
    /// Whether the user's mailbox has room for the sender's messages. One sender may fill half of it.
    has_room: bool,
}

/// Something that keeps messages from arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Finding {
    /// There is no account of the user.
    NoAccount,
    /// The user has no token, so no device can log in.
    NoToken,
    /// There is no account of the sender.
    NoSender,
    /// The sender has no token, so no device of theirs can log in.
    SenderWithoutToken,
    /// The two are not friends.
    NotFriends,
    /// The user has blocked the sender.
    Blocked,
    /// The sender has blocked the user.
    HasBlocked,
    /// The server refuses the sender's messages although the friendship looks right: half of it is missing.
    HalfAFriendship,
    /// There is no room in the user's mailbox for the sender.
    MailboxFull,
    /// No device has ever connected, or its session has ended.
    NoDevice,
    /// No device of the user has subscribed to the inbox: messages wait until one does.
    InboxNotSubscribed,
    /// Devices that would get messages are all away.
    Away,
    /// A connected device has messages that it has not acknowledged for more than a minute.
    NotAcknowledged,
}

/// About whom.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AboutSender {
    /// Whose messages do not arrive.
    #[param(min_length = 1, max_length = 64, pattern = "^[^/+#$:\\u0000]+$")]
    from: Option<String>,
}

/// Why does a user get no messages?
///
/// Account, token, devices, mailbox; and with `from` the friendship, blocks and room for that sender. `findings` says what
/// of it stands in the way.
#[utoipa::path(
    get,
    path = "/users/{id}/diagnosis",
    tag = "users",
    params(UserPath, AboutSender),
    responses(
        (status = 200, description = "What there is to know", body = Diagnosis),
        (status = 404, description = "There is no such user, and nothing left of one"),
    ),
)]
pub(super) async fn show(
    State(api): Shared,
    At(path): At<UserPath>,
    Asked(about): Asked<AboutSender>,
) -> Result<Json<Diagnosis>, Problem> {
    let receiver = path.user()?;
    let from = about.from.as_deref().map(user).transpose()?;
    let account = api.account(&receiver).await?;
    let sender = match from {
        Some(from) => Some(api.sender(&receiver, &from, account.is_some()).await?),
        None => None,
    };
    let view = api.of.router.view(&receiver);
    if account.is_none() && view.is_none() {
        api.require_account(&receiver).await?; // nobody, of whom nothing is left
    }
    let mailbox = api.mailbox(&receiver, view.as_ref()).await?;
    let devices = Device::all_of(&receiver, view, api.of.clock.now());
    let mut diagnosis = Diagnosis {
        user: receiver.to_string(),
        account: account.is_some(),
        token: account.as_ref().is_some_and(|account| account.token),
        push: account.as_ref().is_some_and(|account| account.push),
        mailbox,
        devices,
        sender,
        findings: Vec::new(),
    };
    diagnosis.findings = findings(&diagnosis);
    Ok(Json(diagnosis))
}

impl Api {
    async fn account(&self, user: &UserId) -> Result<Option<crate::directory::User>, Problem> {
        match self.administration.user(user).await {
            Ok(user) => Ok(Some(user)),
            Err(AdministrationError::NoUser(_)) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    async fn sender(
        &self,
        receiver: &UserId,
        sender: &UserId,
        receiver_exists: bool,
    ) -> Result<Sender, Problem> {
        let account = self.account(sender).await?;
        let friend = match receiver_exists {
            true => self
                .administration
                .friend(receiver, sender)
                .await
                .map_err(refused)?,
            false => None,
        };
        let question = Question::Friendship {
            sender: sender.clone(),
            receiver: receiver.clone(),
        };
        let answer = self.of.directory.answer(question).await;
        let answer = answer.map_err(|error| unavailable(&error))?;
        Ok(Sender {
            user: sender.to_string(),
            account: account.is_some(),
            token: account.is_some_and(|account| account.token),
            friends: friend.is_some(),
            blocked: friend.as_ref().is_some_and(|friend| friend.blocked),
            has_blocked: friend.as_ref().is_some_and(|friend| friend.been_blocked),
            may_write: matches!(answer.fact, Fact::Friendship(Friendship::Friends(_))),
            has_room: self.of.router.has_room(receiver, sender),
        })
    }
}

/// What stands in the way, the first cause first.
fn findings(it: &Diagnosis) -> Vec<Finding> {
    let readers = || it.devices.iter().filter(|device| device.inbox);
    let sender = it.sender.as_ref();
    let of_sender = |is: fn(&Sender) -> bool| sender.is_some_and(is);
    let is_slow = it
        .mailbox
        .oldest_secs
        .is_some_and(|secs| secs > SLOW.as_secs());
    let all = [
        (!it.account, Finding::NoAccount),
        (it.account && !it.token, Finding::NoToken),
        (of_sender(|it| !it.account), Finding::NoSender),
        (
            of_sender(|it| it.account && !it.token),
            Finding::SenderWithoutToken,
        ),
        (
            it.account && of_sender(|it| it.account && !it.friends),
            Finding::NotFriends,
        ),
        (of_sender(|it| it.blocked), Finding::Blocked),
        (of_sender(|it| it.has_blocked), Finding::HasBlocked),
        (
            of_sender(|it| it.friends && !it.blocked && !it.has_blocked && !it.may_write),
            Finding::HalfAFriendship,
        ),
        (of_sender(|it| !it.has_room), Finding::MailboxFull),
        (it.devices.is_empty(), Finding::NoDevice),
        (
            !it.devices.is_empty() && readers().next().is_none(),
            Finding::InboxNotSubscribed,
        ),
        (
            readers().next().is_some() && readers().all(|device| !device.connected),
            Finding::Away,
        ),
        (
            is_slow && readers().any(|device| device.connected && device.in_flight > 0),
            Finding::NotAcknowledged,
        ),
    ];
    let found = all.into_iter().filter(|(is_so, _)| *is_so);
    found.map(|(_, finding)| finding).collect()
}
