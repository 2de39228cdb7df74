//! Errors that are planted in the model on purpose. The suite must find each of them.

/// A planted error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The head's ordinal is not compared.
    AppendIgnoresOrdinal,
    /// The head's time is not compared.
    AppendIgnoresTime,
    /// An append whose place is taken replaces the existing row.
    AppendOverwrites,
    /// The last row of a batch is lost.
    AppendLosesLastRow,
    /// Two rows of a batch are swapped.
    AppendReversesRows,
    /// Every fifth append is acked and not written.
    AppendAcksWithoutWriting,
    /// Recorded sends are not searched for the keys of an append.
    AppendIgnoresKnownKeys,
    /// Rows are appended although one of their keys is recorded.
    AppendDespiteKnownKey,
    /// The records that an append contains are not written.
    AppendForgetsRecords,
    /// A row is changed regardless of its version.
    ChangeIgnoresVersion,
    /// The sender's read marker is not moved.
    ConsequencesForgetMarkers,
    /// Old consequences that are applied again move a read marker back.
    ConsequencesGoBack,
    /// The reactions to a deleted message are not removed.
    ConsequencesKeepReactions,
    /// Mentions are not recorded.
    ConsequencesForgetMentions,
    /// The details of the channel are not changed.
    AppendForgetsDetails,
    /// A reaction cannot be removed.
    ReactNeverTakesBack,
    /// The records of the mentions of a deleted message are not removed.
    ConsequencesKeepNotes,
    /// An append of unknown outcome takes effect regardless of the head.
    LateAppendIgnoresHead,
    /// `heads` returns the head before the last append.
    HeadsLagBehind,
    /// `rows` omits the rows of the last append.
    RowsLagBehind,
    /// The first read of a channel after a change of its details returns the old details.
    DetailsLagBehind,
    /// The message that a change contains is stored with it.
    ChangeKeepsMessage,
    /// A read marker moves back.
    MarkerGoesBack,
    /// Seats are changed regardless of their revision.
    SeatsIgnoreRevision,
    /// A settlement is applied although a later change was made.
    SettleIgnoresLaterChange,
    /// A membership overwrites a later one.
    MembershipIgnoresLater,
    /// `rows_back` begins one row below the end.
    RowsBackOffByOne,
    /// `rows_by` finds messages of all senders.
    RowsByIgnoreSender,
    /// `rows` has no limit in bytes.
    RowsIgnoreBytes,
    /// `tail` omits the last row.
    TailLacksLastRow,
    /// `seq_at` finds the row before.
    SeqAtOffByOne,
    /// Records of sends are found regardless of the sender.
    FindSendsIgnoresSender,
    /// Any refresh token may be rotated.
    RotateIgnoresOld,
    /// A rotation does not keep the token that it replaces.
    RotateForgetsOld,
    /// A refresh token is stored without the row that finds it.
    RefreshIsNotIndexed,
    /// Every caller is the first to claim.
    ClaimAlwaysFirst,
    /// Claims are forgotten regardless of their time.
    ForgetsYoungClaims,
    /// The candidate always becomes the direct channel.
    DirectAlwaysCandidate,
    /// A handle may be taken twice.
    HandleTakenTwice,
    /// A user may have any number of devices.
    DevicesWithoutLimit,
    /// A later revocation replaces the first one.
    RevokeReplacesTime,
    /// A sign-in is accepted although all sign-ins were ended after it began.
    DevicesIgnoreRevision,
    /// Revoking all devices except one revokes that one too.
    RevokeAllTakesAll,
    /// Revoked devices are forgotten regardless of their time.
    ForgetsYoungDevices,
    /// The handle of a deleted user is free at once.
    HandleFreeAtOnce,
    /// An invitation may be used any number of times.
    InvitationsUncounted,
    /// A password is replaced regardless of the expected one.
    PasswordIgnoresExpected,
    /// `received` moves back.
    ReceivedGoesBack,
    /// A block does not prevent two users from becoming contacts.
    ContactsIgnoreBlocks,
    /// A user may have any number of contacts.
    ContactsWithoutLimit,
    /// A change of a contact is written into the list of one of the two users only.
    ContactChangesOneSide,
    /// A pair is written regardless of its revision.
    PairIgnoresRevision,
    /// A list replaces a later contact by an older one.
    ContactListGoesBack,
    /// A repeated call does not finish a contact that was written but not listed.
    ContactIsNotFinished,
    /// A change counts as settled although there was a later one.
    SettleContactIgnoresLaterChange,
    /// A blocked user is in the circle.
    CircleIgnoresBlocks,
    /// Members of large groups are in the circle.
    CircleCountsLargeGroups,
    /// Members who were added and have not accepted are in the circle.
    CircleIgnoresAcceptance,
    /// A group counts as shared with a user who has not accepted it.
    RelationsIgnoreAcceptance,
    /// The number of unanswered invitations is not limited.
    InvitationsDisplaceNone,
    /// A declined invitation may be repeated.
    InvitationsForgetDeclines,
    /// An invitation remains although its inviter may no longer add users.
    InvitationsOutliveTheirInviter,
    /// An invitation counts as settled although there was a later change.
    SettleInvitationIgnoresLaterChange,
    /// The time of last activity moves back.
    LastActiveGoesBack,
    /// Pages by activity skip channels with equal times.
    ActivitySkipsTies,
    /// Channels that a user has left count as the user's channels.
    CountsEndedMemberships,
    /// The search for open channels is case sensitive.
    FindIsCaseSensitive,
    /// The member of longest standing becomes the next owner, whether an admin or not.
    SuccessorIgnoresRoles,
    /// Settings are written regardless of their revision.
    SettingsIgnoreRevision,
    /// A message that one user has hidden is hidden from all users.
    HiddenFromEverybody,
    /// An app that registers again counts as a new registration.
    SubscriptionForgetsFirst,
    /// A token stays with its former device as well.
    TokenStaysWithBoth,
    /// The subscription of a revoked device is listed.
    RevokedDeviceIsAlerted,
    /// A subscription is removed although it was registered again.
    RemovesLaterSubscription,
    /// Notes about alerts are found by their last message only.
    NotesByLastMessage,
    /// Notes about alerts are forgotten regardless of their time.
    ForgetsYoungNotes,
    /// Two workers get the same record of the queue of alerts.
    DueIsNotLeased,
    /// A record of the queue of alerts is changed whatever it contains.
    OutstandingIsNotCompared,
    /// Rows that were appended while alerts of earlier ones were made are forgotten.
    OutboxForgetsLaterRows,
    /// A row is replaced regardless of its version.
    ReplaceIgnoresVersion,
    /// One row too many of an own log is trimmed.
    TrimKeepsTooFew,
    /// A ban is forgotten together with the left channel.
    TrimForgetsBans,
    /// A scan continues across trimmed rows.
    ScanIgnoresTrimmed,
    /// Deleting a user removes the block that keeps a direct channel closed.
    ForgetsClosedDirects,
    /// A scan includes open channels.
    ScanShowsOpenChannels,
    /// A scan includes rows from after a member left.
    ScanIgnoresUntil,
    /// A scan omits the user's own log.
    ScanIgnoresOwnLog,
    /// A scan that was cut claims to be complete.
    ScanHidesMore,
    /// All rows of a batch have the same position.
    PositionStandsStill,
    /// Each commit enters the feed twice.
    FeedTwice,
    /// Commits enter the feed in the wrong order: every second one is delayed by one.
    FeedOutOfOrder,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 91] = [
        Self::AppendIgnoresOrdinal,
        Self::AppendIgnoresTime,
        Self::AppendOverwrites,
        Self::AppendLosesLastRow,
        Self::AppendReversesRows,
        Self::AppendAcksWithoutWriting,
        Self::AppendIgnoresKnownKeys,
        Self::AppendDespiteKnownKey,
        Self::AppendForgetsRecords,
        Self::ChangeIgnoresVersion,
        Self::ConsequencesForgetMarkers,
        Self::ConsequencesGoBack,
        Self::ConsequencesKeepReactions,
        Self::ConsequencesForgetMentions,
        Self::AppendForgetsDetails,
        Self::ReactNeverTakesBack,
        Self::ConsequencesKeepNotes,
        Self::LateAppendIgnoresHead,
        Self::HeadsLagBehind,
        Self::RowsLagBehind,
        Self::DetailsLagBehind,
        Self::ChangeKeepsMessage,
        Self::MarkerGoesBack,
        Self::SeatsIgnoreRevision,
        Self::SettleIgnoresLaterChange,
        Self::MembershipIgnoresLater,
        Self::RowsBackOffByOne,
        Self::RowsByIgnoreSender,
        Self::RowsIgnoreBytes,
        Self::TailLacksLastRow,
        Self::SeqAtOffByOne,
        Self::FindSendsIgnoresSender,
        Self::RotateIgnoresOld,
        Self::RotateForgetsOld,
        Self::RefreshIsNotIndexed,
        Self::ClaimAlwaysFirst,
        Self::ForgetsYoungClaims,
        Self::DirectAlwaysCandidate,
        Self::HandleTakenTwice,
        Self::DevicesWithoutLimit,
        Self::RevokeReplacesTime,
        Self::DevicesIgnoreRevision,
        Self::RevokeAllTakesAll,
        Self::ForgetsYoungDevices,
        Self::HandleFreeAtOnce,
        Self::InvitationsUncounted,
        Self::PasswordIgnoresExpected,
        Self::ReceivedGoesBack,
        Self::ContactsIgnoreBlocks,
        Self::ContactsWithoutLimit,
        Self::ContactChangesOneSide,
        Self::PairIgnoresRevision,
        Self::ContactListGoesBack,
        Self::ContactIsNotFinished,
        Self::SettleContactIgnoresLaterChange,
        Self::CircleIgnoresBlocks,
        Self::CircleCountsLargeGroups,
        Self::CircleIgnoresAcceptance,
        Self::RelationsIgnoreAcceptance,
        Self::InvitationsDisplaceNone,
        Self::InvitationsForgetDeclines,
        Self::InvitationsOutliveTheirInviter,
        Self::SettleInvitationIgnoresLaterChange,
        Self::LastActiveGoesBack,
        Self::ActivitySkipsTies,
        Self::CountsEndedMemberships,
        Self::FindIsCaseSensitive,
        Self::SuccessorIgnoresRoles,
        Self::SettingsIgnoreRevision,
        Self::HiddenFromEverybody,
        Self::ReplaceIgnoresVersion,
        Self::SubscriptionForgetsFirst,
        Self::TokenStaysWithBoth,
        Self::RevokedDeviceIsAlerted,
        Self::RemovesLaterSubscription,
        Self::NotesByLastMessage,
        Self::ForgetsYoungNotes,
        Self::DueIsNotLeased,
        Self::OutstandingIsNotCompared,
        Self::OutboxForgetsLaterRows,
        Self::TrimKeepsTooFew,
        Self::TrimForgetsBans,
        Self::ScanIgnoresTrimmed,
        Self::ForgetsClosedDirects,
        Self::ScanShowsOpenChannels,
        Self::ScanIgnoresUntil,
        Self::ScanIgnoresOwnLog,
        Self::ScanHidesMore,
        Self::PositionStandsStill,
        Self::FeedTwice,
        Self::FeedOutOfOrder,
    ];
}
