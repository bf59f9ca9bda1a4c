//! Interruption: everything that waits is told, and cleans up behind itself.

use tokio::sync::watch;

use super::BenchError;

/// Hears that it is over. Clones hear the same.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A pair of the one who says so and those who hear it.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is over: for ever, once nobody can say so any more.
    pub async fn stopped(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|over| *over).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What comes of it, unless it is over before.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`].
    pub async fn unless<T>(&self, doing: impl Future<Output = T>) -> Result<T, BenchError> {
        tokio::select! {
            done = doing => Ok(done),
            () = self.stopped() => Err(BenchError::Interrupted),
        }
    }
}
