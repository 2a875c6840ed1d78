"""Every command, one module for each group of them; each module adds its commands to `console.app`."""
