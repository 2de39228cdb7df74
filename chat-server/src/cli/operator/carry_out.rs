//! Carries out the requests of operators.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use madang_proto::rest::ConfigChange;
use madang_proto::{ErrorBody, ErrorCode};
use madang_store::embedded::{BackedUp, BackupError, Embedded};

use super::request::{AdminAnswer, Ask, ConfigAsk, InvitationsAsk, OperatorAsk, PushAsk, UsersAsk};
use crate::cli::export;
use crate::operations::Operations;
use crate::operators::{Operators, Who};
use crate::refusal::OperationError;
use crate::rest::Api;

/// Carries out a request. `folder` is the data folder of this process, if backups may be made of it.
pub(super) async fn carry_out(api: &Api, folder: Option<&Embedded>, ask: Ask) -> AdminAnswer {
    let operations = &api.gateway.operations;
    let answer = match ask {
        Ask::Token { handle, device_name } => operations
            .sign_in_for(&handle, device_name)
            .await
            .map(|signed_in| AdminAnswer::SignedIn(Box::new(signed_in))),
        Ask::ResetPassword { handle, password, keep_devices } => {
            operations.reset_password(&handle, password, keep_devices).await.map(|()| AdminAnswer::Done)
        }
        Ask::Users(ask) => users(operations, ask).await,
        Ask::Invitations(ask) => invitations(operations, ask).await,
        Ask::Push(ask) => push(operations, ask).await,
        Ask::Operator(ask) => operator(api, ask).await,
        Ask::Config(ask) => config(&operations.operators, ask).await,
        Ask::Backup { to } => back_up(folder, &to).await.map_err(OperationError::from),
        Ask::Top { limit } => operations.top(limit).await.map(AdminAnswer::Top),
    };
    answer.unwrap_or_else(|error| AdminAnswer::Refused(error.into()))
}

async fn users(operations: &Arc<Operations>, ask: UsersAsk) -> Result<AdminAnswer, OperationError> {
    match ask {
        UsersAsk::List { prefix, after, limit } => {
            operations.accounts(&prefix, &after, limit).await.map(AdminAnswer::Accounts)
        }
        UsersAsk::Show { handle } => {
            operations.account(&handle).await.map(|account| AdminAnswer::Account(Box::new(account)))
        }
        UsersAsk::Create { handle, display_name, password } => {
            let made = operations.make_account(&handle, &display_name, password).await;
            made.map(|account| AdminAnswer::Account(Box::new(account)))
        }
        UsersAsk::Disable { handle, is_disabled } => {
            operations.disable_account(&handle, is_disabled).await.map(|()| AdminAnswer::Done)
        }
        UsersAsk::Delete { handle } => operations.remove_account(&handle).await.map(|()| AdminAnswer::Done),
        UsersAsk::Revoke { handle, device } => {
            operations.revoke_for(&handle, device).await.map(AdminAnswer::Revoked)
        }
        UsersAsk::Export { handle, to } => {
            let export = operations.export_of(&handle).await?;
            let end = export::write(export, &to).await?;
            Ok(AdminAnswer::Exported(Box::new(end)))
        }
    }
}

async fn invitations(operations: &Operations, ask: InvitationsAsk) -> Result<AdminAnswer, OperationError> {
    match ask {
        InvitationsAsk::Create { label, uses, days } => {
            operations.invite(&label, uses, days).await.map(|made| AdminAnswer::Invitation(Box::new(made)))
        }
        InvitationsAsk::List { after } => {
            operations.invitations(after.as_deref()).await.map(AdminAnswer::Invitations)
        }
        InvitationsAsk::Revoke { id } => {
            operations.take_invitation_back(&id).await.map(|()| AdminAnswer::Done)
        }
    }
}

async fn push(operations: &Operations, ask: PushAsk) -> Result<AdminAnswer, OperationError> {
    match ask {
        PushAsk::Test { handle } => operations.test_push_of(&handle).await.map(AdminAnswer::PushTests),
        PushAsk::Why { handle, channel, seq } => {
            operations.why_alerted_of(&handle, channel, seq).await.map(AdminAnswer::AlertHistory)
        }
        PushAsk::Dead { after } => operations.dead_letters(after).await.map(AdminAnswer::DeadLetters),
        PushAsk::Redrive { id } => operations.redrive_dead_letters(id).await.map(AdminAnswer::Redriven),
    }
}

async fn operator(api: &Api, ask: OperatorAsk) -> Result<AdminAnswer, OperationError> {
    let operators = &api.gateway.operations.operators;
    operators.refresh().await?;
    match ask {
        OperatorAsk::Add { name, scope } => {
            let secret = operators.add(&name, scope).await?;
            Ok(AdminAnswer::OperatorSecret(secret.reveal().to_owned()))
        }
        OperatorAsk::List => Ok(AdminAnswer::Operators(operators.list())),
        OperatorAsk::Remove { name } => operators.remove(&name).await.map(|()| AdminAnswer::Done),
        OperatorAsk::Board => Ok(AdminAnswer::Board(Box::new(api.watched.board().await))),
    }
}

async fn config(operators: &Operators, ask: ConfigAsk) -> Result<AdminAnswer, OperationError> {
    operators.refresh().await?;
    match ask {
        ConfigAsk::Get => Ok(AdminAnswer::Config(Box::new(operators.config()))),
        ConfigAsk::Set { wanted, version, why } => {
            let base = version.unwrap_or_else(|| operators.config().version);
            let change = ConfigChange { config: *wanted, why };
            let config = operators.change_config(&Who::local(), base, &change).await?;
            Ok(AdminAnswer::Config(Box::new(config)))
        }
        ConfigAsk::Diff { wanted } => operators.difference(&wanted).map(AdminAnswer::Difference),
        ConfigAsk::History(query) => operators.acts(query).await.map(AdminAnswer::Acts),
    }
}

/// Writes a backup of the folder that this process has opened.
pub(in crate::cli) async fn back_up(folder: Option<&Embedded>, to: &Path) -> Result<AdminAnswer, ErrorBody> {
    let folder = folder.ok_or_else(|| ErrorBody::new(ErrorCode::Internal, "this node has no data folder"))?;
    match folder.back_up(to).await {
        Ok(BackedUp { position, bytes }) => {
            tracing::info!(to = %to.display(), position = position.get(), bytes, "backup written");
            Ok(AdminAnswer::BackedUp { position: position.get(), bytes })
        }
        Err(error @ BackupError::Exists(_)) => Err(ErrorBody::invalid("to", error.to_string())),
        Err(BackupError::File { path, error }) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            let message = format!(
                "{}: {error}: the server may write only where its unit allows it (StateDirectory=, ReadWritePaths=)",
                path.display()
            );
            Err(ErrorBody::invalid("to", message))
        }
        Err(error) => {
            tracing::error!(to = %to.display(), %error, "backup failed");
            Err(ErrorBody::new(ErrorCode::Internal, error.to_string()))
        }
    }
}
