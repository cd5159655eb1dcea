//! What the contract promises and no server is needed to see: the events' schemas and golden samples, the tables of
//! phases, authorities and refusals, who writes which subject, and what deployments and dashboards are made of.

mod dashboards;
mod deployment;
mod documents;
mod golden;
mod kept;
mod permissions;
mod samples;
mod schemas;
mod subjects;
mod tables;
