//! The pool's queue.

use super::error::{AzureError, Operation};
use super::transport::Request;
use super::types::JobRequest;
use super::{Azure, wire};

impl Azure {
    /// Returns the pool's jobs that have not ended: waiting, assigned and running.
    pub async fn unfinished_jobs(&self, pool: i32) -> Result<Vec<JobRequest>, AzureError> {
        // In no published reference; Microsoft's own clients use it with a preview version.
        // Without the count of zero the answer is the pool's whole history.
        let path = format!("distributedtask/pools/{pool}/jobrequests");
        let request = Request::get(Operation::ListJobs, path)
            .version("6.0-preview.1")
            .query("completedRequestCount", "0");
        let jobs: Vec<wire::TaskAgentJobRequest> = self.transport().list(request).await?;
        let jobs = jobs.into_iter().map(JobRequest::from);
        Ok(jobs.filter(|job| job.result.is_none()).collect())
    }
}
