//! Faults of the programmer, planted on purpose: the suite must find each of them.

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The head's ordinal is not compared.
    AppendIgnoresOrdinal,
    /// The head's time is not compared.
    AppendIgnoresTime,
    /// An append whose place is taken replaces what is there.
    AppendOverwrites,
    /// The last row of a batch goes missing.
    AppendLosesLastRow,
    /// Two rows of a batch change places.
    AppendReversesRows,
    /// Every fifth append is acked and not written.
    AppendAcksWithoutWriting,
    /// Recorded sends are not asked for the keys of an append.
    AppendIgnoresKnownKeys,
    /// Rows are appended although a key of theirs is known.
    AppendDespiteKnownKey,
    /// The records that come with an append are not written.
    AppendForgetsRecords,
    /// A row is changed whatever its version.
    ChangeIgnoresVersion,
    /// The marker of a sender stays.
    ConsequencesForgetMarkers,
    /// Old consequences that are applied again move a marker back.
    ConsequencesGoBack,
    /// The reactions to a deleted message stay.
    ConsequencesKeepReactions,
    /// Nobody is noted as mentioned.
    ConsequencesForgetMentions,
    /// The channel's details stay.
    AppendForgetsDetails,
    /// A reaction cannot be taken back.
    ReactNeverTakesBack,
    /// The notes of the mentions of a deleted message stay.
    ConsequencesKeepNotes,
    /// An append of unknown outcome happens whatever came before it.
    LateAppendIgnoresHead,
    /// `heads` shows the head before the last append.
    HeadsLagBehind,
    /// `rows` does not show the rows of the last append.
    RowsLagBehind,
    /// The first read of a channel after its details changed shows the old ones.
    DetailsLagBehind,
    /// The message that a change carries is kept with it.
    ChangeKeepsMessage,
    /// A read marker goes backwards.
    MarkerGoesBack,
    /// Seats are changed whatever their revision.
    SeatsIgnoreRevision,
    /// An overtaken settlement is applied.
    SettleIgnoresLaterChange,
    /// A membership is written over a later one.
    MembershipIgnoresLater,
    /// `rows_back` begins one below the end.
    RowsBackOffByOne,
    /// `rows_by` finds the messages of everybody.
    RowsByIgnoreSender,
    /// `rows` has no limit of bytes.
    RowsIgnoreBytes,
    /// `tail` leaves the last row out.
    TailLacksLastRow,
    /// `seq_at` finds the row before.
    SeqAtOffByOne,
    /// Records of sends are found whoever sent.
    FindSendsIgnoresSender,
    /// Any refresh token may be rotated.
    RotateIgnoresOld,
    /// A rotation does not keep the token that it replaces.
    RotateForgetsOld,
    /// A refresh token is written without the row that finds it.
    RefreshIsNotIndexed,
    /// Everybody is the first to claim.
    ClaimAlwaysFirst,
    /// Claims are forgotten whatever their time.
    ForgetsYoungClaims,
    /// The candidate always becomes the direct channel.
    DirectAlwaysCandidate,
    /// A handle may be taken twice.
    HandleTakenTwice,
    /// A user may have any number of devices.
    DevicesWithoutLimit,
    /// A later revocation replaces the first.
    RevokeReplacesTime,
    /// A sign-in that began before all of them were ended is taken.
    DevicesIgnoreRevision,
    /// Revoking all devices but one revokes that one as well.
    RevokeAllTakesAll,
    /// Revoked devices are forgotten whatever their time.
    ForgetsYoungDevices,
    /// A deleted user's handle is free at once.
    HandleFreeAtOnce,
    /// An invitation may be used any number of times.
    InvitationsUncounted,
    /// A password is replaced whatever it was.
    PasswordIgnoresExpected,
    /// `received` goes backwards.
    ReceivedGoesBack,
    /// A block does not keep people from becoming contacts.
    ContactsIgnoreBlocks,
    /// A user may have any number of contacts.
    ContactsWithoutLimit,
    /// A change between two is written into one list only.
    ContactChangesOneSide,
    /// A pair is written whatever its revision.
    PairIgnoresRevision,
    /// A list takes an older contact over a later one.
    ContactListGoesBack,
    /// A contact that was written and not listed is not finished by whoever repeats the call.
    ContactIsNotFinished,
    /// A change counts as told although there was a later one.
    SettleContactIgnoresLaterChange,
    /// Who is blocked is watched all the same.
    CircleIgnoresBlocks,
    /// Members of large groups are watched.
    CircleCountsLargeGroups,
    /// Members who were added and have done nothing are watched.
    CircleIgnoresAcceptance,
    /// A group is shared with somebody who has not accepted it.
    RelationsIgnoreAcceptance,
    /// Any number of invitations waits.
    InvitationsDisplaceNone,
    /// A declined invitation may be repeated.
    InvitationsForgetDeclines,
    /// An invitation holds though its inviter may add nobody any more.
    InvitationsOutliveTheirInviter,
    /// An invitation counts as told although there was a later change.
    SettleInvitationIgnoresLaterChange,
    /// The time of last activity goes backwards.
    LastActiveGoesBack,
    /// Paging by activity skips channels of the same time.
    ActivitySkipsTies,
    /// Channels that a user left count as hers.
    CountsEndedMemberships,
    /// Open channels are found by capitals as they are written.
    FindIsCaseSensitive,
    /// Who has been there longest owns a channel next, admin or not.
    SuccessorIgnoresRoles,
    /// Settings are written whatever their revision.
    SettingsIgnoreRevision,
    /// A message that one user hid is hidden from everybody.
    HiddenFromEverybody,
    /// A row is replaced whatever its version.
    ReplaceIgnoresVersion,
    /// One row of an own log too many is forgotten.
    TrimKeepsTooFew,
    /// A ban is forgotten with the channel that was left.
    TrimForgetsBans,
    /// A scan goes on where rows were forgotten.
    ScanIgnoresTrimmed,
    /// With a deleted user goes the block that keeps a direct channel closed.
    ForgetsClosedDirects,
    /// A scan shows open channels as well.
    ScanShowsOpenChannels,
    /// A scan shows what came after a member left.
    ScanIgnoresUntil,
    /// A scan forgets the user's own log.
    ScanIgnoresOwnLog,
    /// A scan says that it is complete when it was cut.
    ScanHidesMore,
    /// Positions of a batch are all the same.
    PositionStandsStill,
    /// Each commit enters the feed twice.
    FeedTwice,
    /// Rows enter the feed before the changes that they stand behind: every second commit comes one late.
    FeedOutOfOrder,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 82] = [
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
