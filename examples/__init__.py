"""Small projects to deploy, and the demo that deploys one of them; see README.md beside this file."""
