"""famcli's own tasks, installed as ``famcli.tasks`` and found through entry points as any plugin is."""
