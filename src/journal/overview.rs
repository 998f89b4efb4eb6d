//! A look at the members of a cluster. A build without the feature `postgres` has none.

#[cfg(feature = "postgres")]
pub use super::postgres::overview::Overview;

#[cfg(not(feature = "postgres"))]
pub use self::none::Overview;

#[cfg(not(feature = "postgres"))]
mod none {
    use crate::cluster::report::MemberReport;
    use crate::cluster::shard::Shard;
    use crate::config::settings::DatabaseSettings;
    use crate::journal::OpenError;

    /// Without a database there is nobody to be seen.
    #[derive(Debug)]
    pub struct Overview(());

    impl Overview {
        /// # Errors
        /// Always.
        pub fn open(_: &DatabaseSettings) -> Result<Self, OpenError> {
            Err(OpenError::Database("this build is without the feature postgres".to_owned()))
        }

        /// # Errors
        /// Never.
        pub fn members(&mut self) -> Result<Vec<MemberReport>, OpenError> {
            Ok(Vec::new())
        }

        /// # Errors
        /// Never.
        pub fn drain(&mut self, _: &str, _: bool) -> Result<bool, OpenError> {
            Ok(false)
        }

        /// # Errors
        /// Never.
        pub fn place(&mut self, _: &[Shard], _: Option<&str>) -> Result<bool, OpenError> {
            Ok(false)
        }
    }
}
