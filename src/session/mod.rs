//! One client: read, plan, act, answer in order.
