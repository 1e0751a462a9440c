"""From score and cost records to tables, figures and a headline (paper section 4 and appendix D)."""
