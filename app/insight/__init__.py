"""Analysis of the stored log and customers. Hides how sessions, tickets, previews and segment reports are computed."""
