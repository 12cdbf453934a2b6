//! All tasks in words, for those who look for a fault.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Runtime;
use super::task::{Life, ProcessRef, Task};

impl Runtime {
    /// What is known of every task; no shim is asked.
    pub(crate) fn dump(&self) -> Vec<Value> {
        let mut tasks: Vec<Arc<Task>> = self.tasks().values().cloned().collect();
        tasks.sort_by(|a, b| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
        tasks.iter().map(|task| of_task(task)).collect()
    }
}

fn of_task(task: &Task) -> Value {
    let (life, shim) = match task.life() {
        Life::Creating => ("creating", Value::Null),
        Life::Adopting => ("adopting", Value::Null),
        Life::Live(shim) => (
            "live",
            json!({
                "address": shim.answer.address,
                "version": shim.answer.version,
                "silent": shim.silent,
            }),
        ),
        Life::Dead => ("dead", Value::Null),
        Life::Gone => ("gone", Value::Null),
    };
    let processes = task.processes();
    let processes: Vec<Value> = processes
        .into_iter()
        .map(|(process, known)| {
            json!({
                "exec": match &process {
                    ProcessRef::Init => "",
                    ProcessRef::Exec(id) => id,
                },
                "pid": known.pid,
                "exit": known.exit.map(|exit| json!({
                    "status": exit.status,
                    "at": crate::time::to_rfc3339(exit.exited_at),
                    "reason": exit.reason,
                })),
            })
        })
        .collect();
    json!({
        "namespace": task.namespace,
        "id": task.id,
        "life": life,
        "shim": shim,
        "program": task.program(),
        "busy": task.lifecycle.try_lock().is_err(),
        "processes": processes,
    })
}
